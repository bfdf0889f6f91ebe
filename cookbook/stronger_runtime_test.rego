package stronger_runtime_test

import rego.v1

of(tenant) := about("execution.start", tenant)

about(action, tenant) := {
	"action": {"type": action, "env_names": [], "network": "none", "isolation": "process"},
	"caller": {"tenant": tenant},
	"profile": {"name": "default", "labels": {}},
}

test_an_unknown_tenant_gets_a_second_kernel if {
	answer := data.sandboxd.decision with input as of("acme")
	answer.verdict == "transform"
	answer.obligations == {"runtime_floor": "gvisor"}
}

test_an_unknown_tenant_may_use_a_reviewed_profile if {
	answer := data.sandboxd.decision with input as about("profile.use", "acme")
	answer.verdict == "allow"
}

test_a_known_one_runs_as_before if {
	answer := data.sandboxd.decision with input as of("local")
	answer.verdict == "allow"
}
