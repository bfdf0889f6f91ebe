# Programs of a tenant that is not known run on a second kernel, or not at all.
package sandboxd

import rego.v1

known_tenants := {"local"}

allow if {
	input.action.type in {"profile.use", "execution.start"}
	reviewed
	not input.caller.tenant in known_tenants
}

tighten contains {
	"code": "unknown_tenant",
	"message": "programs of this tenant run with isolation gvisor or stronger",
	"runtime_floor": "gvisor",
} if {
	input.action.type == "execution.start"
	not input.caller.tenant in known_tenants
}
