# Source that could not, or not wholly, be analysed is denied: what has no findings may only be what was not read.
package sandboxd

import rego.v1

deny contains {"code": "code_not_analysed", "message": message} if {
	input.action.type == "execution.start"
	why := {finding.detail | some finding in input.action.findings; finding.code in {"analysis.failed", "findings.cut"}}
	count(why) > 0
	cause := concat(", ", [reason | some reason in why])
	message := concat("", ["the source could not be analysed in full (", cause, "); send it simpler or corrected"])
}
