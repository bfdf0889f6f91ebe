package known_programs_test

import rego.v1

starting(image) := {
	"action": {"type": "process.exec", "image": image, "argv": [image], "cwd": "/workspace", "pid": 7, "parent_pid": 2},
	"caller": {"tenant": "local"},
	"profile": {"name": "default", "labels": {}},
}

test_a_program_that_is_not_listed_does_not_start if {
	answer := data.sandboxd.decision with input as starting("/usr/bin/curl")
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["unknown_program"]
}

test_a_listed_one_does if {
	answer := data.sandboxd.decision with input as starting("/usr/bin/git")
	answer.verdict == "allow"
}
