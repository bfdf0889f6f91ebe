# What the default policy must answer: `codes` are those of its reasons. The tests are in `sandboxd_test.rego`.
package sandboxd_test

import rego.v1

cases := {
	"a program under a shipped profile is allowed": {
		"input": {
			"action": {"type": "execution.start", "env_names": ["LANG"], "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"a reviewed profile is allowed": {
		"input": {
			"action": {"type": "execution.start", "env_names": [], "network": "loopback", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {"sandboxd.io/reviewed": "true"}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"an unknown profile is denied": {
		"input": {
			"action": {"type": "execution.start", "env_names": [], "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"another tenant is denied": {
		"input": {
			"action": {"type": "execution.start", "env_names": [], "network": "none", "isolation": "process"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"an unknown action is denied": {
		"input": {
			"action": {"type": "host.reboot", "env_names": [], "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"an empty input is denied": {
		"input": {},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"credentials in the environment are denied": {
		"input": {
			"action": {
				"type": "execution.start",
				"env_names": ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "LANG"],
				"network": "none",
				"isolation": "process",
			},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["credential_in_env", "credential_in_env"],
	},
	"an open network on the shared kernel is denied": {
		"input": {
			"action": {"type": "execution.start", "env_names": [], "network": "egress", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["network_needs_isolation"],
	},
	"an open network behind a second kernel is allowed": {
		"input": {
			"action": {"type": "execution.start", "env_names": [], "network": "egress", "isolation": "gvisor"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"process.exec of a caller of this node is allowed": {
		"input": {
			"action": {"type": "process.exec"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"process.exec of another tenant is denied": {
		"input": {
			"action": {"type": "process.exec"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"process.exec under an unknown profile is denied": {
		"input": {
			"action": {"type": "process.exec"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"profile.use of a caller of this node is allowed": {
		"input": {
			"action": {"type": "profile.use", "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"profile.use of another tenant is denied": {
		"input": {
			"action": {"type": "profile.use", "network": "none", "isolation": "process"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"profile.use under an unknown profile is denied": {
		"input": {
			"action": {"type": "profile.use", "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.put of a caller of this node is allowed": {
		"input": {
			"action": {"type": "file.put"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"file.put of another tenant is denied": {
		"input": {
			"action": {"type": "file.put"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.put under an unknown profile is denied": {
		"input": {
			"action": {"type": "file.put"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.get of a caller of this node is allowed": {
		"input": {
			"action": {"type": "file.get"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"file.get of another tenant is denied": {
		"input": {
			"action": {"type": "file.get"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.get under an unknown profile is denied": {
		"input": {
			"action": {"type": "file.get"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.list of a caller of this node is allowed": {
		"input": {
			"action": {"type": "file.list"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"file.list of another tenant is denied": {
		"input": {
			"action": {"type": "file.list"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.list under an unknown profile is denied": {
		"input": {
			"action": {"type": "file.list"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.delete of a caller of this node is allowed": {
		"input": {
			"action": {"type": "file.delete"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"file.delete of another tenant is denied": {
		"input": {
			"action": {"type": "file.delete"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"file.delete under an unknown profile is denied": {
		"input": {
			"action": {"type": "file.delete"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.create of a caller of this node is allowed": {
		"input": {
			"action": {"type": "sandbox.create", "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"sandbox.create of another tenant is denied": {
		"input": {
			"action": {"type": "sandbox.create", "network": "none", "isolation": "process"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.create under an unknown profile is denied": {
		"input": {
			"action": {"type": "sandbox.create", "network": "none", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.delete of a caller of this node is allowed": {
		"input": {
			"action": {"type": "sandbox.delete"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"sandbox.delete of another tenant is denied": {
		"input": {
			"action": {"type": "sandbox.delete"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.delete under an unknown profile is denied": {
		"input": {
			"action": {"type": "sandbox.delete"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.pause of a caller of this node is allowed": {
		"input": {
			"action": {"type": "sandbox.pause"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"sandbox.pause of another tenant is denied": {
		"input": {
			"action": {"type": "sandbox.pause"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.pause under an unknown profile is denied": {
		"input": {
			"action": {"type": "sandbox.pause"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.resume of a caller of this node is allowed": {
		"input": {
			"action": {"type": "sandbox.resume"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"sandbox.resume of another tenant is denied": {
		"input": {
			"action": {"type": "sandbox.resume"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.resume under an unknown profile is denied": {
		"input": {
			"action": {"type": "sandbox.resume"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.snapshot of a caller of this node is allowed": {
		"input": {
			"action": {"type": "sandbox.snapshot"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"sandbox.snapshot of another tenant is denied": {
		"input": {
			"action": {"type": "sandbox.snapshot"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.snapshot under an unknown profile is denied": {
		"input": {
			"action": {"type": "sandbox.snapshot"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.restore of a caller of this node is allowed": {
		"input": {
			"action": {"type": "sandbox.restore"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"sandbox.restore of another tenant is denied": {
		"input": {
			"action": {"type": "sandbox.restore"},
			"caller": {"tenant": "acme"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"sandbox.restore under an unknown profile is denied": {
		"input": {
			"action": {"type": "sandbox.restore"},
			"caller": {"tenant": "local"},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"a sandbox with an open network on the shared kernel is denied": {
		"input": {
			"action": {"type": "sandbox.create", "network": "egress", "isolation": "process"},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["network_needs_isolation"],
	},
	"an operator may approve what another asked for": {
		"input": {
			"action": {"type": "approval.decide", "requester": "uid:1000"},
			"caller": {"tenant": "local", "subject": "uid:0", "roles": ["operator"]},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"nobody approves what they asked for": {
		"input": {
			"action": {"type": "approval.decide", "requester": "uid:0"},
			"caller": {"tenant": "local", "subject": "uid:0", "roles": ["operator"]},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["own_request"],
	},
	"who does not run the node approves nothing": {
		"input": {
			"action": {"type": "approval.decide", "requester": "uid:0"},
			"caller": {"tenant": "local", "subject": "uid:1000", "roles": []},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"an operator may freeze under any profile": {
		"input": {
			"action": {"type": "sandbox.pause"},
			"caller": {"tenant": "local", "subject": "uid:0", "roles": ["operator"]},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"an operator may quarantine a tenant of whose profile nothing is known": {
		"input": {
			"action": {"type": "sandbox.pause"},
			"caller": {"tenant": "local", "subject": "webhook", "roles": ["operator"]},
			"profile": {"name": "", "labels": {}},
		},
		"verdict": "allow",
		"codes": [],
	},
	"who does not run the node ends nothing under a profile that nobody reviewed": {
		"input": {
			"action": {"type": "sandbox.delete"},
			"caller": {"tenant": "local", "subject": "uid:1000", "roles": []},
			"profile": {"name": "mine", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["not_allowed"],
	},
	"a connection is denied by name": {
		"input": {
			"action": {"type": "net.connect", "protocol": "tcp", "host": "example.org", "address": "192.0.2.1", "port": 443},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["egress_not_allowed"],
	},
	"a secret is denied by name": {
		"input": {
			"action": {"type": "secret.use", "name": "token", "host": "example.org", "port": 443},
			"caller": {"tenant": "local"},
			"profile": {"name": "default", "labels": {}},
		},
		"verdict": "deny",
		"codes": ["secret_not_allowed"],
	},
}
