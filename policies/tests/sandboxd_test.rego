# One test for each case of `cases_test.rego`. Run by `sandboxctl policy test policies` and by `opa test policies`.
package sandboxd_test

import rego.v1

test_a_program_under_a_shipped_profile_is_allowed if {
	answer := data.sandboxd.decision with input as cases["a program under a shipped profile is allowed"].input
	as_expected(answer, cases["a program under a shipped profile is allowed"])
}

test_a_reviewed_profile_is_allowed if {
	answer := data.sandboxd.decision with input as cases["a reviewed profile is allowed"].input
	as_expected(answer, cases["a reviewed profile is allowed"])
}

test_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["an unknown profile is denied"].input
	as_expected(answer, cases["an unknown profile is denied"])
}

test_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["another tenant is denied"].input
	as_expected(answer, cases["another tenant is denied"])
}

test_an_unknown_action_is_denied if {
	answer := data.sandboxd.decision with input as cases["an unknown action is denied"].input
	as_expected(answer, cases["an unknown action is denied"])
}

test_an_empty_input_is_denied if {
	answer := data.sandboxd.decision with input as cases["an empty input is denied"].input
	as_expected(answer, cases["an empty input is denied"])
}

test_credentials_in_the_environment_are_denied if {
	answer := data.sandboxd.decision with input as cases["credentials in the environment are denied"].input
	as_expected(answer, cases["credentials in the environment are denied"])
}

test_an_open_network_on_the_shared_kernel_is_denied if {
	answer := data.sandboxd.decision with input as cases["an open network on the shared kernel is denied"].input
	as_expected(answer, cases["an open network on the shared kernel is denied"])
}

test_an_open_network_behind_a_second_kernel_is_allowed if {
	answer := data.sandboxd.decision with input as cases["an open network behind a second kernel is allowed"].input
	as_expected(answer, cases["an open network behind a second kernel is allowed"])
}

test_process_exec_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["process.exec of a caller of this node is allowed"].input
	as_expected(answer, cases["process.exec of a caller of this node is allowed"])
}

test_process_exec_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["process.exec of another tenant is denied"].input
	as_expected(answer, cases["process.exec of another tenant is denied"])
}

test_process_exec_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["process.exec under an unknown profile is denied"].input
	as_expected(answer, cases["process.exec under an unknown profile is denied"])
}

test_profile_use_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["profile.use of a caller of this node is allowed"].input
	as_expected(answer, cases["profile.use of a caller of this node is allowed"])
}

test_profile_use_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["profile.use of another tenant is denied"].input
	as_expected(answer, cases["profile.use of another tenant is denied"])
}

test_profile_use_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["profile.use under an unknown profile is denied"].input
	as_expected(answer, cases["profile.use under an unknown profile is denied"])
}

test_file_put_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["file.put of a caller of this node is allowed"].input
	as_expected(answer, cases["file.put of a caller of this node is allowed"])
}

test_file_put_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.put of another tenant is denied"].input
	as_expected(answer, cases["file.put of another tenant is denied"])
}

test_file_put_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.put under an unknown profile is denied"].input
	as_expected(answer, cases["file.put under an unknown profile is denied"])
}

test_file_get_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["file.get of a caller of this node is allowed"].input
	as_expected(answer, cases["file.get of a caller of this node is allowed"])
}

test_file_get_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.get of another tenant is denied"].input
	as_expected(answer, cases["file.get of another tenant is denied"])
}

test_file_get_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.get under an unknown profile is denied"].input
	as_expected(answer, cases["file.get under an unknown profile is denied"])
}

test_file_list_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["file.list of a caller of this node is allowed"].input
	as_expected(answer, cases["file.list of a caller of this node is allowed"])
}

test_file_list_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.list of another tenant is denied"].input
	as_expected(answer, cases["file.list of another tenant is denied"])
}

test_file_list_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.list under an unknown profile is denied"].input
	as_expected(answer, cases["file.list under an unknown profile is denied"])
}

test_file_delete_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["file.delete of a caller of this node is allowed"].input
	as_expected(answer, cases["file.delete of a caller of this node is allowed"])
}

test_file_delete_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.delete of another tenant is denied"].input
	as_expected(answer, cases["file.delete of another tenant is denied"])
}

test_file_delete_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["file.delete under an unknown profile is denied"].input
	as_expected(answer, cases["file.delete under an unknown profile is denied"])
}

test_sandbox_create_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["sandbox.create of a caller of this node is allowed"].input
	as_expected(answer, cases["sandbox.create of a caller of this node is allowed"])
}

test_sandbox_create_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.create of another tenant is denied"].input
	as_expected(answer, cases["sandbox.create of another tenant is denied"])
}

test_sandbox_create_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.create under an unknown profile is denied"].input
	as_expected(answer, cases["sandbox.create under an unknown profile is denied"])
}

test_sandbox_delete_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["sandbox.delete of a caller of this node is allowed"].input
	as_expected(answer, cases["sandbox.delete of a caller of this node is allowed"])
}

test_sandbox_delete_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.delete of another tenant is denied"].input
	as_expected(answer, cases["sandbox.delete of another tenant is denied"])
}

test_sandbox_delete_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.delete under an unknown profile is denied"].input
	as_expected(answer, cases["sandbox.delete under an unknown profile is denied"])
}

test_sandbox_pause_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["sandbox.pause of a caller of this node is allowed"].input
	as_expected(answer, cases["sandbox.pause of a caller of this node is allowed"])
}

test_sandbox_pause_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.pause of another tenant is denied"].input
	as_expected(answer, cases["sandbox.pause of another tenant is denied"])
}

test_sandbox_pause_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.pause under an unknown profile is denied"].input
	as_expected(answer, cases["sandbox.pause under an unknown profile is denied"])
}

test_sandbox_resume_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["sandbox.resume of a caller of this node is allowed"].input
	as_expected(answer, cases["sandbox.resume of a caller of this node is allowed"])
}

test_sandbox_resume_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.resume of another tenant is denied"].input
	as_expected(answer, cases["sandbox.resume of another tenant is denied"])
}

test_sandbox_resume_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.resume under an unknown profile is denied"].input
	as_expected(answer, cases["sandbox.resume under an unknown profile is denied"])
}

test_sandbox_snapshot_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["sandbox.snapshot of a caller of this node is allowed"].input
	as_expected(answer, cases["sandbox.snapshot of a caller of this node is allowed"])
}

test_sandbox_snapshot_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.snapshot of another tenant is denied"].input
	as_expected(answer, cases["sandbox.snapshot of another tenant is denied"])
}

test_sandbox_snapshot_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.snapshot under an unknown profile is denied"].input
	as_expected(answer, cases["sandbox.snapshot under an unknown profile is denied"])
}

test_sandbox_restore_of_a_caller_of_this_node_is_allowed if {
	answer := data.sandboxd.decision with input as cases["sandbox.restore of a caller of this node is allowed"].input
	as_expected(answer, cases["sandbox.restore of a caller of this node is allowed"])
}

test_sandbox_restore_of_another_tenant_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.restore of another tenant is denied"].input
	as_expected(answer, cases["sandbox.restore of another tenant is denied"])
}

test_sandbox_restore_under_an_unknown_profile_is_denied if {
	answer := data.sandboxd.decision with input as cases["sandbox.restore under an unknown profile is denied"].input
	as_expected(answer, cases["sandbox.restore under an unknown profile is denied"])
}

test_a_sandbox_with_an_open_network_on_the_shared_kernel_is_denied if {
	answer := data.sandboxd.decision with input as cases["a sandbox with an open network on the shared kernel is denied"].input
	as_expected(answer, cases["a sandbox with an open network on the shared kernel is denied"])
}

test_an_operator_may_approve_what_another_asked_for if {
	answer := data.sandboxd.decision with input as cases["an operator may approve what another asked for"].input
	as_expected(answer, cases["an operator may approve what another asked for"])
}

test_nobody_approves_what_they_asked_for if {
	answer := data.sandboxd.decision with input as cases["nobody approves what they asked for"].input
	as_expected(answer, cases["nobody approves what they asked for"])
}

test_who_does_not_run_the_node_approves_nothing if {
	answer := data.sandboxd.decision with input as cases["who does not run the node approves nothing"].input
	as_expected(answer, cases["who does not run the node approves nothing"])
}

test_an_operator_may_freeze_under_any_profile if {
	answer := data.sandboxd.decision with input as cases["an operator may freeze under any profile"].input
	as_expected(answer, cases["an operator may freeze under any profile"])
}

test_an_operator_may_quarantine_a_tenant_of_whose_profile_nothing_is_known if {
	answer := data.sandboxd.decision with input as cases["an operator may quarantine a tenant of whose profile nothing is known"].input
	as_expected(answer, cases["an operator may quarantine a tenant of whose profile nothing is known"])
}

test_who_does_not_run_the_node_ends_nothing_under_a_profile_that_nobody_reviewed if {
	answer := data.sandboxd.decision with input as cases["who does not run the node ends nothing under a profile that nobody reviewed"].input
	as_expected(answer, cases["who does not run the node ends nothing under a profile that nobody reviewed"])
}

test_a_connection_is_denied_by_name if {
	answer := data.sandboxd.decision with input as cases["a connection is denied by name"].input
	as_expected(answer, cases["a connection is denied by name"])
}

test_a_secret_is_denied_by_name if {
	answer := data.sandboxd.decision with input as cases["a secret is denied by name"].input
	as_expected(answer, cases["a secret is denied by name"])
}

as_expected(answer, example) if {
	answer.verdict == example.verdict
	[reason.code | some reason in answer.reasons] == example.codes
}
