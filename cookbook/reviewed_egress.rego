# Connections out are allowed to listed hosts, from sandboxes whose profile was reviewed for egress.
package sandboxd

import rego.v1

reviewed_hosts := {"packages.example.org", "downloads.example.org"}

allow if {
	input.action.type == "net.connect"
	input.caller.tenant == "local"
	input.profile.labels["sandboxd.io/egress-reviewed"] == "true"
	input.action.host in reviewed_hosts
	input.action.port == 443
}
