# What is labelled as of low trust gets less memory and time.
package sandboxd

import rego.v1

tighten contains {
	"code": "low_trust",
	"message": "programs of low trust run with 128 MiB and 10 seconds",
	"limits": {"memory_bytes": 134217728, "wall_seconds": 10},
} if {
	input.action.type == "execution.start"
	input.action.labels.trust == "low"
}
