package egress_after_secret_test

import rego.v1

connecting(secret) := {
	"action": {"type": "net.connect", "protocol": "tcp", "host": "packages.example.org", "address": "192.0.2.1", "port": 443},
	"caller": {"tenant": "local"},
	"profile": {"name": "mine", "labels": {"sandboxd.io/egress-reviewed": "true"}},
	"sandbox": {"seen": {"secret": secret, "untrusted_input": false, "egress": false}},
}

test_after_a_secret_no_connection if {
	answer := data.sandboxd.decision with input as connecting(true)
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["egress_after_secret"]
}

test_before_it_other_rules_decide if {
	answer := data.sandboxd.decision with input as connecting(false)
	not "egress_after_secret" in [reason.code | some reason in answer.reasons]
}
