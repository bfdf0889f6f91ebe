package code_starts_processes_test

import rego.v1

source(language, findings) := {
	"action": {
		"type": "execution.start",
		"findings": findings,
		"code": {"language": language, "bytes": 40, "lines": 2, "entropy": 4.1, "parsed": true},
		"env_names": [],
		"network": "none",
		"isolation": "process",
	},
	"caller": {"tenant": "local"},
	"profile": {"name": "python", "labels": {}},
}

starting := source("python", [{"code": "process.start", "detail": "os.system", "line": 2}])

importing := source("python", [{"code": "import", "detail": "os", "line": 2}])

shell := source("shell", [{"code": "process.start", "detail": "os.system", "line": 2}])

without_source := {
	"action": {
		"type": "execution.start",
		"findings": [],
		"code": null,
		"env_names": [],
		"network": "none",
		"isolation": "process",
	},
	"caller": {"tenant": "local"},
	"profile": {"name": "python", "labels": {}},
}

test_python_that_starts_a_process_is_denied_and_told_by_what if {
	answer := data.sandboxd.decision with input as starting
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["code_starts_processes"]
	contains(answer.message_for_agent, "os.system")
}

test_python_that_starts_none_is_allowed if {
	answer := data.sandboxd.decision with input as importing
	answer.verdict == "allow"
}

test_other_languages_may_start_processes if {
	answer := data.sandboxd.decision with input as shell
	answer.verdict == "allow"
}

test_a_program_without_source_is_allowed if {
	answer := data.sandboxd.decision with input as without_source
	answer.verdict == "allow"
}
