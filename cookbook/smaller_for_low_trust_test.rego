package smaller_for_low_trust_test

import rego.v1

labelled(labels) := {
	"action": {
		"type": "execution.start",
		"env_names": [],
		"network": "none",
		"isolation": "process",
		"labels": labels,
	},
	"caller": {"tenant": "local"},
	"profile": {"name": "default", "labels": {}},
}

test_low_trust_gets_less if {
	answer := data.sandboxd.decision with input as labelled({"trust": "low"})
	answer.verdict == "transform"
	answer.obligations.limits == {"memory_bytes": 134217728, "wall_seconds": 10}
}

test_without_the_label_nothing_changes if {
	answer := data.sandboxd.decision with input as labelled({})
	answer.verdict == "allow"
}
