# Python source that starts processes is denied: `os.system`, `subprocess.run`, under whatever name.
package sandboxd

import rego.v1

deny contains {"code": "code_starts_processes", "message": message} if {
	input.action.type == "execution.start"
	input.action.code.language == "python"
	functions := {finding.detail | some finding in input.action.findings; finding.code == "process.start"}
	count(functions) > 0
	named := concat(", ", [name | some name in functions])
	message := concat("", ["the source starts processes (", named, "); do it in Python instead"])
}
