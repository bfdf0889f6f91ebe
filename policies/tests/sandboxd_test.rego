# Run by `opa test policies`.
package sandboxd_test

import rego.v1

test_every_case if {
	every example in cases {
		answer := data.sandboxd.decision with input as example.input
		answer.verdict == example.verdict
		[reason.code | some reason in answer.reasons] == example.codes
	}
}
