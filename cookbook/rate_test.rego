package rate_test

import rego.v1

lately(executions, denials, bytes_out) := {
	"last_minute": {"executions": executions, "denials": 0, "bytes_out": 0},
	"last_hour": {"executions": executions, "denials": denials, "bytes_out": bytes_out},
}

after(history) := {
	"action": {"type": "execution.start", "env_names": [], "network": "none", "isolation": "process"},
	"caller": {"tenant": "local"},
	"profile": {"name": "default", "labels": {}},
	"history": history,
}

test_programs_are_bounded if {
	answer := data.sandboxd.decision with input as after(lately(60, 0, 0))
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["too_many"]
}

test_denials_are_bounded if {
	answer := data.sandboxd.decision with input as after(lately(0, 100, 0))
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["too_many_denials"]
}

test_output_is_bounded if {
	answer := data.sandboxd.decision with input as after(lately(0, 0, 1073741824))
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["too_much_output"]
}

test_below_all_of_them_it_is if {
	answer := data.sandboxd.decision with input as after(lately(59, 99, 1073741823))
	answer.verdict == "allow"
}
