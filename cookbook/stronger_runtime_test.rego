package stronger_runtime_test

import rego.v1

of(tenant) := {
	"action": {"type": "execution.start", "env_names": [], "network": "none", "isolation": "process"},
	"caller": {"tenant": tenant},
	"profile": {"name": "default", "labels": {}},
}

test_an_unknown_tenant_gets_a_second_kernel if {
	answer := data.sandboxd.decision with input as of("acme")
	answer.verdict == "transform"
	answer.obligations == {"runtime_floor": "gvisor"}
}

test_a_known_one_runs_as_before if {
	answer := data.sandboxd.decision with input as of("local")
	answer.verdict == "allow"
}
