package decoded_code_test

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

decoding := source("python", [{"code": "eval.decoded", "detail": "base64.b64decode", "line": 2}])

downloading := source("shell", [{"code": "eval.downloaded", "detail": "curl", "line": 2}])

evaluating := source("javascript", [{"code": "eval.string", "detail": "eval", "line": 2}])

test_decoded_code_is_denied_and_told_by_what if {
	answer := data.sandboxd.decision with input as decoding
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["hidden_code"]
	contains(answer.message_for_agent, "base64.b64decode")
}

test_downloaded_code_is_denied if {
	answer := data.sandboxd.decision with input as downloading
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["hidden_code"]
	contains(answer.message_for_agent, "curl")
}

test_an_eval_of_what_stands_there_is_allowed if {
	answer := data.sandboxd.decision with input as evaluating
	answer.verdict == "allow"
}
