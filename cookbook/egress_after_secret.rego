# What has read a secret may not connect any more.
package sandboxd

import rego.v1

deny contains {"code": "egress_after_secret", "message": "this sandbox has read a secret and may not connect any more"} if {
	input.action.type == "net.connect"
	input.sandbox.seen.secret
}
