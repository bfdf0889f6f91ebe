package redacted_output_test

import rego.v1

labelled(type, labels) := {
	"action": {"type": type, "env_names": [], "network": "none", "isolation": "process"},
	"caller": {"tenant": "local"},
	"profile": {"name": "default", "labels": labels},
}

test_what_a_labelled_profile_prints_is_redacted if {
	answer := data.sandboxd.decision with input as labelled("execution.start", {"redact": "credentials"})
	answer.verdict == "transform"
	"private-key" in answer.obligations.redact
	"jwt" in answer.obligations.redact
}

test_without_the_label_nothing_is if {
	answer := data.sandboxd.decision with input as labelled("execution.start", {})
	answer.verdict == "allow"
}

test_what_has_no_output_goes_ahead if {
	answer := data.sandboxd.decision with input as labelled("sandbox.delete", {"redact": "credentials"})
	answer.verdict == "allow"
}
