package unread_code_test

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

broken := source("python", [{"code": "analysis.failed", "detail": "syntax", "line": 2}])

unavailable := source("shell", [{"code": "analysis.failed", "detail": "unavailable", "line": 2}])

cut := source("javascript", [{"code": "findings.cut", "detail": "import", "line": 2}])

read := source("python", [{"code": "import", "detail": "os", "line": 2}])

test_source_that_does_not_parse_is_denied if {
	answer := data.sandboxd.decision with input as broken
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["code_not_analysed"]
	contains(answer.message_for_agent, "syntax")
}

test_source_that_nobody_could_read_is_denied if {
	answer := data.sandboxd.decision with input as unavailable
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["code_not_analysed"]
}

test_source_of_which_not_all_is_told_is_denied if {
	answer := data.sandboxd.decision with input as cut
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["code_not_analysed"]
}

test_source_that_was_read_is_allowed if {
	answer := data.sandboxd.decision with input as read
	answer.verdict == "allow"
}
