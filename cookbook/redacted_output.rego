# Takes credentials out of what programs print and leave in files, under profiles that are labelled for it. The names are
# those of docs/redaction.md. It keeps honest programs from leaking by mistake, and nobody from leaking on purpose.
package sandboxd

import rego.v1

tighten contains {
	"code": "redacted_output",
	"message": "credentials are taken out of the output",
	"redact": [
		"aws-access-key-id", "aws-secret-access-key", "bearer-token", "github-token", "gitlab-token", "google-api-key",
		"jwt", "npm-token", "private-key", "pypi-token", "slack-token", "stripe-key",
	],
} if {
	input.action.type == "execution.start"
	input.profile.labels.redact == "credentials"
}
