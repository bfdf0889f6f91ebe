package package_installs_test

import rego.v1

start(argv, extra) := {
	"action": {"type": "execution.start", "argv": argv, "env_names": [], "network": "none", "isolation": "process"},
	"caller": {"tenant": "local", "subject": "uid:1000", "roles": []},
	"profile": {"name": "default", "labels": extra},
}

test_an_installer_waits_for_a_person if {
	answer := data.sandboxd.decision with input as start(["/usr/bin/pip", "install", "x"], {})
	answer.verdict == "escalate"
	answer.obligations.approval.ttl_seconds == 3600
}

test_one_by_its_name_does if {
	answer := data.sandboxd.decision with input as start(["npm", "install", "x"], {})
	answer.verdict == "escalate"
	answer.obligations.approval.ttl_seconds == 3600
}

test_one_by_way_of_python_does if {
	answer := data.sandboxd.decision with input as start(["python3", "-m", "pip", "install", "x"], {})
	answer.verdict == "escalate"
	answer.obligations.approval.ttl_seconds == 3600
}

test_other_use_of_an_installer_does_not if {
	answer := data.sandboxd.decision with input as start(["pip", "list"], {})
	answer.verdict == "allow"
}
