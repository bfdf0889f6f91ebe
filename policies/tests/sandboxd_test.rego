package sandboxd_test

import data.sandboxd
import rego.v1

start := {
	"action": {"type": "execution.start", "env_names": ["LANG"], "network": "none", "isolation": "process"},
	"caller": {"tenant": "local"},
	"profile": {"name": "default", "labels": {}},
}

reason_codes(answer) := {reason.code | some reason in answer.reasons}

test_a_program_under_a_shipped_profile_is_allowed if {
	answer := sandboxd.decision with input as start
	answer.verdict == "allow"
}

test_a_reviewed_profile_is_allowed if {
	own := object.union(start, {"profile": {"name": "mine", "labels": {"sandboxd.io/reviewed": "true"}}})
	answer := sandboxd.decision with input as own
	answer.verdict == "allow"
}

test_an_unknown_profile_is_denied if {
	own := object.union(start, {"profile": {"name": "mine", "labels": {}}})
	answer := sandboxd.decision with input as own
	answer.verdict == "deny"
	reason_codes(answer) == {"not_allowed"}
}

test_another_tenant_is_denied if {
	other := object.union(start, {"caller": {"tenant": "acme"}})
	answer := sandboxd.decision with input as other
	answer.verdict == "deny"
	reason_codes(answer) == {"not_allowed"}
}

test_an_unknown_action_is_denied if {
	other := object.union(start, {"action": {"type": "host.reboot"}})
	answer := sandboxd.decision with input as other
	answer.verdict == "deny"
}

test_an_empty_input_is_denied if {
	answer := sandboxd.decision with input as {}
	answer.verdict == "deny"
}

test_a_credential_in_the_environment_is_denied_by_name if {
	leaking := object.union(start, {"action": {"env_names": ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"]}})
	answer := sandboxd.decision with input as leaking
	answer.verdict == "deny"
	reason_codes(answer) == {"credential_in_env"}
	count(answer.reasons) == 2
	contains(answer.message_for_agent, "GITHUB_TOKEN")
}

test_an_open_network_on_the_shared_kernel_is_denied if {
	open := object.union(start, {"action": {"network": "egress"}})
	answer := sandboxd.decision with input as open
	answer.verdict == "deny"
	reason_codes(answer) == {"network_needs_isolation"}
}
