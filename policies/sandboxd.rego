# The default policy: deny, unless a rule allows and none denies. Of several rules that hold, the strictest wins.
#
# `input` is one action: {action, caller, profile, sandbox, history, node, time, api_version}; the answer is
# {verdict, reasons, message_for_agent, obligations, ttl_seconds}. It can only narrow what the profile and the daemon's
# floor permit. To change it, put a file of the same package beside a copy of this one and name their directory in the
# daemon's configuration (policy.paths). A rule of yours adds to one of these sets:
#
#   allow                                                         what may be done at all
#   deny contains {"code", "message"}                             never
#   escalate contains {"code", "message"}                         only if a person says so; `approval` says who
#   approval contains {"ttl_seconds", "approvers", "quorum"}      of several the shortest, the common ones, the most
#   tighten contains {"code", "message", and of "limits", "runtime_floor" and "redact" what it demands}
#                                                                 only so: the lesser limits, the strongest runtime, and
#                                                                 all redaction that any demands (docs/redaction.md)
#   warn contains {"code", "message"}                             with a warning in the answer and on record
#
# A message is shown to the agent as it stands. Examples are in `cookbook`.
package sandboxd

import rego.v1

# What holds where nothing below does, be it for a fault in a rule.
default decision := {
	"verdict": "deny",
	"reasons": [{"code": "not_allowed", "message": "no rule allows this action"}],
	"message_for_agent": "this action is not allowed by policy",
}

# The first that holds. Constants alone: a value that cannot be computed would let the next one be taken.
verdict := "deny" if {
	count(deny) > 0
} else := "refuse" if {
	not allow
} else := "escalate" if {
	count(escalate) > 0
} else := "transform" if {
	count(tighten) > 0
} else := "warn" if {
	count(warn) > 0
} else := "allow"

decision := {"verdict": "deny", "reasons": reasons(deny), "message_for_agent": told(deny)} if verdict == "deny"

decision := {"verdict": "deny", "reasons": [refusal], "message_for_agent": refusal.message} if verdict == "refuse"

decision := {
	"verdict": "escalate",
	"reasons": reasons(escalate),
	"message_for_agent": told(escalate),
	"obligations": joined([obligations, {"approval": asked_approval}]),
} if {
	verdict == "escalate"
}

# These are answered alike for a minute without being asked again; a reload ends that at once. Never so where a policy
# looks at the time or at what happened before.
decision := {
	"verdict": "transform",
	"reasons": reasons(tighten | warn),
	"message_for_agent": told(tighten),
	"obligations": obligations,
	"ttl_seconds": 60,
} if {
	verdict == "transform"
}

decision := {
	"verdict": "warn",
	"reasons": reasons(warn),
	"message_for_agent": told(warn),
	"ttl_seconds": 60,
} if {
	verdict == "warn"
}

decision := {"verdict": "allow", "reasons": [], "ttl_seconds": 60} if verdict == "allow"

# What no rule allows: this policy has a word for some of it.
default refusal := {"code": "not_allowed", "message": "this action is not allowed by policy"}

refusal := unasked[input.action.type]

reasons(rules) := [{"code": rule.code, "message": rule.message} | some rule in rules]

told(rules) := concat("; ", [rule.message | some rule in rules])

# --- what several rules demand together

obligations := joined([lesser_limits, strongest_runtime, all_redaction])

joined(parts) := {name: value | some part in parts; some name, value in part}

default lesser_limits := {}

lesser_limits := {"limits": least_limit} if count(asked_limits) > 0

asked_limits contains [name, number] if {
	some rule in tighten
	some name, number in rule.limits
}

least_limit[name] := number if {
	some [name, number] in asked_limits
	not asked_for_less(name, number)
}

asked_for_less(name, number) if {
	some [other, less] in asked_limits
	other == name
	less < number
}

default strongest_runtime := {}

strongest_runtime := {"runtime_floor": "kata"} if "kata" in runtime_floors

strongest_runtime := {"runtime_floor": "gvisor"} if {
	"gvisor" in runtime_floors
	not "kata" in runtime_floors
}

runtime_floors := {rule.runtime_floor | some rule in tighten}

default all_redaction := {}

all_redaction := {"redact": [name | some name in asked_redaction]} if count(asked_redaction) > 0

asked_redaction contains name if {
	some rule in tighten
	some name in rule.redact
}

# Who may approve, if no rule says it: any operator but the one who asks, within a quarter of an hour.
asked_approval := {"ttl_seconds": shortest, "quorum": largest, "approvers": common_approvers}

approval_rules := approval if count(approval) > 0

approval_rules := {{"ttl_seconds": 900, "approvers": [], "quorum": 1}} if count(approval) == 0

shortest := seconds if {
	some rule in approval_rules
	seconds := rule.ttl_seconds
	every other in approval_rules {
		other.ttl_seconds >= seconds
	}
}

largest := quorum if {
	some rule in approval_rules
	quorum := rule.quorum
	every other in approval_rules {
		other.quorum <= quorum
	}
}

approver_lists := {{approver | some approver in rule.approvers} | some rule in approval; count(rule.approvers) > 0}

default common_approvers := []

common_approvers := [approver | some approver in intersection(approver_lists)] if count(approver_lists) > 0

# An empty list would mean any operator.
deny contains {"code": "no_common_approver", "message": "the rules leave nobody who could approve this"} if {
	count(escalate) > 0
	count(approver_lists) > 0
	count(common_approvers) == 0
}

# Each of them is there, whoever adds to it.
escalate contains rule if some rule in []

approval contains rule if some rule in []

tighten contains rule if some rule in []

warn contains rule if some rule in []

# --- the rules

# Nothing leaves a sandbox, and no secret is used for it, unless a policy of yours says where to.
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

# Whoever runs the node answers an incident: freezes, thaws, ends or looks into a sandbox, whoever's and however it is.
allow if {
	input.action.type in {"sandbox.pause", "sandbox.resume", "sandbox.delete", "sandbox.snapshot"}
	"operator" in input.caller.roles
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
