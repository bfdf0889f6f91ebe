# Source that decodes text and runs it (`exec(base64.b64decode(…))`) or fetches it and runs it (`curl … | sh`) is denied.
package sandboxd

import rego.v1

deny contains {"code": "hidden_code", "message": message} if {
	input.action.type == "execution.start"
	hidden := {finding.detail | some finding in input.action.findings; hides_code(finding.code)}
	count(hidden) > 0
	ways := concat(", ", [name | some name in hidden])
	message := concat("", ["the source runs code that is not in it (by way of ", ways, "); send the code itself"])
}

hides_code("eval.decoded")

hides_code("eval.downloaded")
