# Nothing is started outside working hours, 08:00 to 18:00 in UTC, whatever day it is.
package sandboxd

import rego.v1

working_hours := {"08", "09", "10", "11", "12", "13", "14", "15", "16", "17"}

deny contains {"code": "outside_working_hours", "message": "programs run between 08:00 and 18:00 UTC; try again then"} if {
	input.action.type == "execution.start"
	hour := split(split(input.time, "T")[1], ":")[0]
	not hour in working_hours
}
