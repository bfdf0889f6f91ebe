"""The nouns on their way out: every value of every enum has its counterpart, and no text can break a message."""

from dataclasses import fields, replace

import pytest

from sandboxd.lifecycle import ExecutionRecord, ExecutionState
from sandboxd.model import (
    Chunk,
    EndReason,
    EnforcementRow,
    Guarantee,
    Isolation,
    LimitId,
    Limits,
    OutputFile,
    State,
    Stream,
    Usage,
    Violation,
)
from sandboxd.rpc import convert
from sandboxd.rpc.v1 import enforcement_pb2, sandbox_pb2
from tests.fakes.executor import ACCEPTED, EXECUTION_ID, OUTCOME, REPORT, SANDBOX_ID
from tests.unit.rpc.conftest import CAPABILITIES, LIMITS

SURROGATE = b"caf\xe9".decode(errors="surrogateescape")
RECORD = ExecutionRecord(
    execution_id=EXECUTION_ID,
    sandbox_id=SANDBOX_ID,
    tenant="local",
    subject="uid:7",
    profile="default",
    command=SURROGATE,
    labels=(("a", "b"),),
    requested_at=5.0,
)


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_reason_keeps_its_name(reason: EndReason) -> None:
    message = convert.result(replace(OUTCOME, end_reason=reason), 0)
    assert sandbox_pb2.EndReason.Name(message.end_reason) == f"END_REASON_{reason.value}"


def test_every_end_reason_of_the_api_is_one_of_the_model() -> None:
    assert len(sandbox_pb2.EndReason.keys()) == len(EndReason) + 1


@pytest.mark.parametrize("state", State)
def test_every_state_of_a_guarantee_keeps_its_name(state: State) -> None:
    (row,) = convert.rows((EnforcementRow(Guarantee.KILL_TREE, state, ("cgroup",), "why"),))
    assert enforcement_pb2.EnforcementState.Name(row.state) == f"ENFORCEMENT_STATE_{state.name}"
    assert (row.guarantee, list(row.layers), row.reason) == ("kill.tree", ["cgroup"], "why")


@pytest.mark.parametrize("isolation", Isolation)
def test_every_isolation_keeps_its_name(isolation: Isolation) -> None:
    message = convert.report(replace(REPORT, runtime=isolation))
    assert enforcement_pb2.Isolation.Name(message.runtime) == f"ISOLATION_{isolation.name}"


@pytest.mark.parametrize("stream", Stream)
def test_chunk_keeps_its_bytes_and_place(stream: Stream) -> None:
    message = convert.chunk(Chunk(stream, 7, b"\0\xff", "image/png"))
    assert sandbox_pb2.OutputStream.Name(message.stream) == f"OUTPUT_STREAM_{stream.name}"
    assert (message.offset, message.data, message.mime_type) == (7, b"\0\xff", "image/png")


@pytest.mark.parametrize("state", ExecutionState)
def test_every_state_of_an_execution_is_told(state: ExecutionState) -> None:
    message = convert.execution(replace(RECORD, state=state))
    assert message.state != sandbox_pb2.EXECUTION_STATE_UNSPECIFIED


@pytest.mark.parametrize(("frozen", "held"), [(False, False), (True, False), (True, True), (False, True)])
def test_execution_tells_whether_it_is_frozen_and_whether_held(frozen: bool, held: bool) -> None:
    message = convert.execution(replace(RECORD, frozen=frozen, held=held))
    assert (message.frozen, message.held) == (frozen, held)


def test_accepted_tells_what_enforces_what() -> None:
    message = convert.accepted(ACCEPTED)
    assert (message.execution_id, message.sandbox_id) == (EXECUTION_ID, SANDBOX_ID)
    assert (message.profile, message.profile_digest, message.policy_revision) == ("default", "ab" * 32, "r1")
    assert message.enforcement == convert.report(REPORT)
    assert [row.guarantee for row in message.enforcement.rows] == ["network.none", "limit.memory"]


def test_a_message_given_away_can_be_changed_without_changing_the_next() -> None:
    convert.accepted(ACCEPTED).enforcement.warnings.append("changed")
    assert convert.accepted(ACCEPTED).enforcement == convert.report(REPORT)


def test_result_tells_everything_of_an_outcome() -> None:
    outcome = replace(
        OUTCOME,
        exit_code=None,
        signal=9,
        limits_hit=(LimitId.PIDS, LimitId.STDOUT),
        stdout_truncated=True,
        violations=(Violation("seccomp", "mount", "x"),),
        files=(OutputFile("a", b"b", 0o640),),
        files_skipped=(("c", "too many"),),
        message_for_agent="it was too much",
        redactions=(("jwt", 2),),
    )
    message = convert.result(outcome, 1 << 20)
    assert message.WhichOneof("status") == "signal"
    assert message.signal == 9
    assert message.limits_hit == ["pids", "stdout"]
    assert (message.stdout_truncated, message.stderr_truncated) == (True, False)
    assert [(v.layer, v.code, v.detail) for v in message.violations] == [("seccomp", "mount", "x")]
    assert [(file.path, file.content, file.mode) for file in message.files] == [("a", b"b", 0o640)]
    assert [(skipped.path, skipped.reason) for skipped in message.files_skipped] == [("c", "too many")]
    assert message.message_for_agent == "it was too much"
    assert [(one.pattern, one.matches) for one in message.redactions] == [("jwt", 2)]


def test_exit_code_zero_is_told_apart_from_none() -> None:
    assert convert.result(OUTCOME, 0).WhichOneof("status") == "exit_code"
    assert convert.result(replace(OUTCOME, exit_code=None), 0).WhichOneof("status") is None


def test_usage_that_was_not_measured_is_not_set() -> None:
    message = convert.usage(Usage(wall_seconds=1.0, peak_pids=0, cpu_user_seconds=0.25))
    assert message.HasField("peak_pids")
    assert message.cpu_user_seconds == 0.25
    for name in ("cpu_system_seconds", "peak_memory_bytes", "io_read_bytes", "io_write_bytes"):
        assert not message.HasField(name)


def test_every_limit_is_told_under_its_own_name() -> None:
    message = convert.limits(LIMITS)
    told = {field.name: value for field, value in message.ListFields()}
    assert told == {field.name: getattr(LIMITS, field.name) for field in fields(Limits)}
    assert set(message.DESCRIPTOR.fields_by_name) == set(told)


def test_files_are_kept_while_they_fit() -> None:
    files = tuple(OutputFile(name, bytes(1000), 0o644) for name in "abc")
    message = convert.result(replace(OUTCOME, files=files), 2 * (1000 + 4 + convert.FILES_OVERHEAD_BYTES))
    assert [file.path for file in message.files] == ["a", "b"]
    assert [(skipped.path, skipped.reason) for skipped in message.files_skipped] == [("c", convert.TOO_LARGE)]


def test_text_that_is_not_unicode_is_escaped() -> None:
    assert convert.text(SURROGATE) == "caf\\udce9"
    assert convert.text("café") == "café"
    convert.execution(RECORD).SerializeToString()
    convert.result(replace(OUTCOME, files=(OutputFile(SURROGATE, b"", 0o644),)), 1000).SerializeToString()


def test_ended_execution_has_its_times_and_result() -> None:
    message = convert.execution(
        replace(RECORD, state=ExecutionState.ENDED, ended_at=6.5, report=REPORT, outcome=OUTCOME)
    )
    assert (message.started_at.seconds, message.ended_at.seconds, message.ended_at.nanos) == (5, 6, 500_000_000)
    assert message.result.execution_id == EXECUTION_ID
    assert message.isolation == enforcement_pb2.ISOLATION_PROCESS


def test_capabilities_tell_each_row() -> None:
    message = convert.capabilities(CAPABILITIES)
    assert message.mode == "rootless-single"
    assert len(message.rows) == len(CAPABILITIES.rows)
