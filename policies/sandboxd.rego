# The default policy: deny, unless a rule below allows and none denies.
#
# `input` is one action: {action, caller, profile, sandbox, node, time, api_version}; the answer is
# {verdict, reasons, message_for_agent, obligations, ttl_seconds}. Change it by copying this directory and naming yours
# in the daemon's configuration (policy.paths). It can only narrow what the profile and the daemon's floor permit.
package sandboxd

import rego.v1

default decision := {
	"verdict": "deny",
	"reasons": [{"code": "not_allowed", "message": "no rule allows this action"}],
	"message_for_agent": "this action is not allowed by policy",
}

decision := {
	"verdict": "deny",
	"reasons": [reason | some reason in deny],
	"message_for_agent": concat("; ", [reason.message | some reason in deny]),
} if {
	count(deny) > 0
}

# The same question gets the same answer without being asked again for a minute; a reload ends that at once. Never so
# where a policy looks at the time or at what happened in the sandbox.
decision := {"verdict": "allow", "reasons": [], "ttl_seconds": 60} if {
	count(deny) == 0
	allow
}

# What no rule allows and this policy has a word for. Nothing leaves a sandbox, and no secret is used for it, unless a
# policy of yours says where to.
decision := {
	"verdict": "deny",
	"reasons": [unasked[input.action.type]],
	"message_for_agent": unasked[input.action.type].message,
} if {
	count(deny) == 0
	not allow
}

unasked := {
	"net.connect": {"code": "egress_not_allowed", "message": "no rule allows this connection"},
	"secret.use": {"code": "secret_not_allowed", "message": "no rule lets this sandbox use this secret"},
}

known_profiles := {"default", "strict", "python", "node", "shell", "build"}

# What callers on this node may do, under a profile that was shipped with the daemon or is marked as reviewed: run
# programs, and whatever concerns sandboxes and files of their own.
own_work := {
	"execution.start", "process.exec", "profile.use",
	"file.put", "file.get", "file.list", "file.delete",
	"sandbox.create", "sandbox.delete", "sandbox.pause", "sandbox.resume", "sandbox.snapshot", "sandbox.restore",
}

allow if {
	input.action.type in own_work
	input.caller.tenant == "local"
	reviewed
}

# Whoever runs the node decides what policy left to people, but never what they asked for themselves.
allow if {
	input.action.type == "approval.decide"
	"operator" in input.caller.roles
}

deny contains {"code": "own_request", "message": "whoever asks for something cannot approve it"} if {
	input.action.type == "approval.decide"
	input.action.requester == input.caller.subject
}

reviewed if input.profile.name in known_profiles

reviewed if input.profile.labels["sandboxd.io/reviewed"] == "true"

# A credential in the environment is readable by everything that runs there.
deny contains {"code": "credential_in_env", "message": message} if {
	some name in input.action.env_names
	credential_name(lower(name))
	message := sprintf("environment variable %s looks like a credential; hand the program a file or a broker instead", [name])
}

credential_name(name) if {
	some ending in ["password", "passwd", "secret", "secret_key", "secret_access_key", "api_key", "private_key", "_token"]
	endswith(name, ending)
}

# Only a second kernel may hold a program that is not confined to its own network.
deny contains {"code": "network_needs_isolation", "message": "this network mode needs isolation gvisor or kata"} if {
	not confined_network
	input.action.isolation == "process"
}

confined_network if input.action.network in {"none", "loopback"}
