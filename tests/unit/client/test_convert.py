import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sandboxd.client import EndReason, ExecutionState, Level, Redaction, State, Stream, convert
from sandboxd.rpc.v1 import enforcement_pb2, profile_pb2, sandbox_pb2


def test_every_end_reason_of_the_api_is_known() -> None:
    for name, number in sandbox_pb2.EndReason.items():
        expected = EndReason.UNKNOWN if number == 0 else EndReason(name.removeprefix("END_REASON_"))
        assert (
            convert.result(
                sandbox_pb2.ExecutionResult(end_reason=number), convert.enforcement(enforcement_pb2.EnforcementReport())
            ).end_reason
            is expected
        )


def test_every_state_of_the_api_is_known() -> None:
    for name, number in enforcement_pb2.EnforcementState.items():
        report = convert.enforcement(
            enforcement_pb2.EnforcementReport(rows=[enforcement_pb2.EnforcementRow(guarantee="g", state=number)])
        )
        suffix = name.removeprefix("ENFORCEMENT_STATE_").lower()
        assert report.rows[0].state is (State.UNKNOWN if number == 0 else State(suffix))


def test_every_isolation_of_the_api_is_known() -> None:
    for name, number in enforcement_pb2.Isolation.items():
        expected = "" if number == 0 else name.removeprefix("ISOLATION_").lower()
        assert convert.execution(sandbox_pb2.Execution(isolation=number)).isolation == expected


def test_exit_code_zero_is_not_a_missing_one() -> None:
    report = convert.enforcement(enforcement_pb2.EnforcementReport())
    assert convert.result(sandbox_pb2.ExecutionResult(exit_code=0), report).exit_code == 0
    assert convert.result(sandbox_pb2.ExecutionResult(), report).exit_code is None
    assert convert.result(sandbox_pb2.ExecutionResult(signal=9), report).signal == 9


def test_usage_that_was_not_measured_is_none() -> None:
    report = convert.enforcement(enforcement_pb2.EnforcementReport())
    message = sandbox_pb2.ExecutionResult(usage=sandbox_pb2.Usage(peak_pids=0, stdout_bytes=3))
    usage = convert.result(message, report).usage
    assert (usage.peak_pids, usage.peak_memory_bytes, usage.stdout_bytes) == (0, None, 3)


def test_redactions_name_pattern_and_matches() -> None:
    report = convert.enforcement(enforcement_pb2.EnforcementReport())
    message = sandbox_pb2.ExecutionResult(redactions=[sandbox_pb2.Redaction(pattern="jwt", matches=2)])
    assert convert.result(message, report).redactions == (Redaction("jwt", 2),)
    assert convert.result(sandbox_pb2.ExecutionResult(), report).redactions == ()


def test_chunk_of_an_unknown_stream_is_passed_over() -> None:
    assert convert.chunk(sandbox_pb2.OutputChunk(data=b"x")) is None
    known = convert.chunk(sandbox_pb2.OutputChunk(stream=sandbox_pb2.OUTPUT_STREAM_STDERR, data=b"x", offset=4))
    assert known is not None
    assert (known.stream, known.offset) == (Stream.STDERR, 4)


def test_execution_has_times_with_a_zone_and_a_result_only_at_its_end() -> None:
    message = sandbox_pb2.Execution(state=sandbox_pb2.EXECUTION_STATE_RUNNING)
    message.started_at.FromSeconds(60)
    found = convert.execution(message)
    assert found.started_at is not None
    assert found.started_at.isoformat() == "1970-01-01T00:01:00+00:00"
    assert (found.ended_at, found.result, found.state) == (None, None, ExecutionState.RUNNING)


def test_execution_is_frozen_and_held_as_the_node_says() -> None:
    for frozen, held in ((False, False), (True, False), (True, True), (False, True)):
        found = convert.execution(sandbox_pb2.Execution(frozen=frozen, held=held))
        assert (found.frozen, found.held) == (frozen, held)


@pytest.mark.parametrize(("seconds", "nanos"), [(-(1 << 62), 0), (1 << 62, 0), (0, -5), (0, 2_000_000_000)])
def test_time_out_of_range_is_none(seconds: int, nanos: int) -> None:
    message = sandbox_pb2.Execution(started_at=Timestamp(seconds=seconds, nanos=nanos))
    assert convert.execution(message).started_at is None


def test_requirements_of_a_profile_keep_their_level() -> None:
    message = profile_pb2.Profile()
    message.requirements.add(guarantee="a", level=profile_pb2.ENFORCEMENT_LEVEL_REQUIRE)
    message.requirements.add(guarantee="b", level=profile_pb2.ENFORCEMENT_LEVEL_BEST_EFFORT)
    assert convert.profile(message).requirements == (("a", Level.REQUIRE), ("b", Level.BEST_EFFORT))
