# Where a profile mediates exec, only listed programs are started inside a sandbox.
package sandboxd

import rego.v1

known_programs := {"/usr/bin/python3", "/usr/bin/python3.11", "/usr/bin/git", "/usr/bin/ls", "/usr/bin/cat"}

deny contains {"code": "unknown_program", "message": "this program is not on the list of those that may be started here"} if {
	input.action.type == "process.exec"
	not input.action.image in known_programs
}
