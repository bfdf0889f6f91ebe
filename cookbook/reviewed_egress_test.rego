package reviewed_egress_test

import rego.v1

connecting(host, port, labels) := {
	"action": {"type": "net.connect", "protocol": "tcp", "host": host, "address": "192.0.2.1", "port": port},
	"caller": {"tenant": "local"},
	"profile": {"name": "mine", "labels": labels},
	"sandbox": {"seen": {"secret": false, "untrusted_input": false, "egress": false}},
}

test_a_reviewed_profile_reaches_a_listed_host if {
	answer := data.sandboxd.decision with input as connecting("packages.example.org", 443, {"sandboxd.io/egress-reviewed": "true"})
	answer.verdict == "allow"
}

test_another_host_does_not if {
	answer := data.sandboxd.decision with input as connecting("example.org", 443, {"sandboxd.io/egress-reviewed": "true"})
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["egress_not_allowed"]
}

test_another_port_does_not if {
	answer := data.sandboxd.decision with input as connecting("packages.example.org", 22, {"sandboxd.io/egress-reviewed": "true"})
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["egress_not_allowed"]
}

test_another_profile_does_not if {
	answer := data.sandboxd.decision with input as connecting("packages.example.org", 443, {})
	answer.verdict == "deny"
	[reason.code | some reason in answer.reasons] == ["egress_not_allowed"]
}
