package working_hours_test

import rego.v1

at(time) := {
	"action": {"type": "execution.start", "env_names": [], "network": "none", "isolation": "process"},
	"caller": {"tenant": "local"},
	"profile": {"name": "default", "labels": {}},
	"time": time,
}

test_before_eight if {
	answer := data.sandboxd.decision with input as at("2026-11-23T07:59:59.999Z")
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["outside_working_hours"]
}

test_from_six if {
	answer := data.sandboxd.decision with input as at("2026-11-23T18:00:00.000Z")
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["outside_working_hours"]
}

test_at_night if {
	answer := data.sandboxd.decision with input as at("2026-11-23T00:30:00.000Z")
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["outside_working_hours"]
}

test_from_eight if {
	answer := data.sandboxd.decision with input as at("2026-11-23T08:00:00.000Z")
	answer.verdict == "allow"
}

test_with_a_zero_before_the_hour if {
	answer := data.sandboxd.decision with input as at("2026-11-23T09:15:00.000Z")
	answer.verdict == "allow"
}

test_until_six if {
	answer := data.sandboxd.decision with input as at("2026-11-23T17:59:59.999Z")
	answer.verdict == "allow"
}
