# A person has to agree before packages are installed.
package sandboxd

import rego.v1

installers := {"pip", "pip3", "npm", "yarn", "apt", "apt-get", "gem", "cargo"}

escalate contains {"code": "package_install", "message": "a person has to agree to the installation of packages"} if {
	input.action.type == "execution.start"
	installs
}

approval contains {"ttl_seconds": 3600, "approvers": [], "quorum": 1} if {
	input.action.type == "execution.start"
	installs
}

installs if {
	parts := split(input.action.argv[0], "/")
	parts[count(parts) - 1] in installers
	"install" in input.action.argv
}

# python3 -m pip install
installs if {
	"-m" in input.action.argv
	"pip" in input.action.argv
	"install" in input.action.argv
}

# As a command within a shell script that was analysed.
installs if {
	some finding in input.action.findings
	finding.code == "command"
	finding.detail in installers
}
