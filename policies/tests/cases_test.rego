# What the default policy must answer: `codes` are those of its reasons. `sandboxd_test.rego` is how OPA checks them; the
# embedded engine cannot compile `with input as` over this policy, so the daemon's own tests put each input to it.
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
}
