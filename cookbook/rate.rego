# A tenant starts at most so many programs, and after many denials it pauses.
package sandboxd

import rego.v1

deny contains {"code": "too_many", "message": "too many programs within a minute; wait for one"} if {
	input.action.type == "execution.start"
	input.history.last_minute.executions >= 60
}

deny contains {"code": "too_many_denials", "message": "too much of what was asked was denied; a person should look at it"} if {
	input.action.type == "execution.start"
	input.history.last_hour.denials >= 100
}

deny contains {"code": "too_much_output", "message": "too much output within an hour; ask for less"} if {
	input.action.type == "execution.start"
	input.history.last_hour.bytes_out >= 1073741824
}
