"""The nouns of `model` as protobuf messages, field by field.

Must never fail on what a program or a kernel made up: text that is not Unicode is escaped, since protobuf takes only
UTF-8. The way in is in `request`. Used by the services and by `status`.
"""

from collections.abc import Iterable
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from sandboxd.lifecycle import ExecutionRecord, ExecutionState
from sandboxd.model import (
    Accepted,
    Chunk,
    EndReason,
    EnforcementReport,
    EnforcementRow,
    Isolation,
    Limits,
    Outcome,
    OutputFile,
    RuntimeCapabilities,
    State,
    Stream,
    Usage,
)
from sandboxd.rpc.v1 import enforcement_pb2, node_pb2, sandbox_pb2

FILES_OVERHEAD_BYTES = 64  # what a file takes in a message beside its path and content, generously
TOO_LARGE = "larger than what is left of a message"

ISOLATIONS = {
    Isolation.PROCESS: enforcement_pb2.ISOLATION_PROCESS,
    Isolation.GVISOR: enforcement_pb2.ISOLATION_GVISOR,
    Isolation.KATA: enforcement_pb2.ISOLATION_KATA,
}
_STATES = {
    State.ENFORCED: enforcement_pb2.ENFORCEMENT_STATE_ENFORCED,
    State.DEGRADED: enforcement_pb2.ENFORCEMENT_STATE_DEGRADED,
    State.ABSENT: enforcement_pb2.ENFORCEMENT_STATE_ABSENT,
}
_STREAMS = {
    Stream.STDOUT: sandbox_pb2.OUTPUT_STREAM_STDOUT,
    Stream.STDERR: sandbox_pb2.OUTPUT_STREAM_STDERR,
}
_EXECUTION_STATES = {
    ExecutionState.PREPARING: sandbox_pb2.EXECUTION_STATE_STARTING,
    ExecutionState.RUNNING: sandbox_pb2.EXECUTION_STATE_RUNNING,
    ExecutionState.ENDED: sandbox_pb2.EXECUTION_STATE_ENDED,
}
_END_REASONS = {
    EndReason.EXITED: sandbox_pb2.END_REASON_EXITED,
    EndReason.SIGNALED: sandbox_pb2.END_REASON_SIGNALED,
    EndReason.WALL_TIMEOUT: sandbox_pb2.END_REASON_WALL_TIMEOUT,
    EndReason.IDLE_TIMEOUT: sandbox_pb2.END_REASON_IDLE_TIMEOUT,
    EndReason.CPU_TIMEOUT: sandbox_pb2.END_REASON_CPU_TIMEOUT,
    EndReason.MEMORY_LIMIT: sandbox_pb2.END_REASON_MEMORY_LIMIT,
    EndReason.OUTPUT_LIMIT: sandbox_pb2.END_REASON_OUTPUT_LIMIT,
    EndReason.POLICY_DENIED: sandbox_pb2.END_REASON_POLICY_DENIED,
    EndReason.VIOLATION: sandbox_pb2.END_REASON_VIOLATION,
    EndReason.CANCELLED: sandbox_pb2.END_REASON_CANCELLED,
    EndReason.KILLED: sandbox_pb2.END_REASON_KILLED,
    EndReason.NODE_SHUTDOWN: sandbox_pb2.END_REASON_NODE_SHUTDOWN,
    EndReason.RUNTIME_FAILED: sandbox_pb2.END_REASON_RUNTIME_FAILED,
}


def text(value: str) -> str:
    """The same if it is Unicode; lone surrogates (bytes of a path that are not UTF-8) escaped as `\\udc..`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="backslashreplace").decode()
    return value


def accepted(item: Accepted) -> sandbox_pb2.Accepted:
    return sandbox_pb2.Accepted(
        execution_id=item.execution_id,
        sandbox_id=item.sandbox_id,
        profile=text(item.profile),
        profile_digest=item.profile_digest,
        policy_revision=text(item.policy_revision),
        enforcement=_report(item.report),
    )


def chunk(item: Chunk) -> sandbox_pb2.OutputChunk:
    return sandbox_pb2.OutputChunk(
        stream=_STREAMS[item.stream], offset=item.offset, data=item.data, mime_type=item.mime_type
    )


def result(item: Outcome, room_bytes: int) -> sandbox_pb2.ExecutionResult:
    """`room_bytes` is what the files may take of a message; those that do not fit are listed as skipped."""
    kept, left_out = _fitting(item.files, room_bytes)
    message = sandbox_pb2.ExecutionResult(
        execution_id=item.execution_id,
        end_reason=_END_REASONS[item.end_reason],
        usage=usage(item.usage),
        limits_hit=[limit.value for limit in item.limits_hit],
        stdout_truncated=item.stdout_truncated,
        stderr_truncated=item.stderr_truncated,
        violations=[
            sandbox_pb2.Violation(layer=violation.layer, code=violation.code, detail=text(violation.detail))
            for violation in item.violations
        ],
        files=[sandbox_pb2.OutputFile(path=text(file.path), content=file.content, mode=file.mode) for file in kept],
        files_skipped=[
            sandbox_pb2.SkippedFile(path=text(path), reason=text(why)) for path, why in (*item.files_skipped, *left_out)
        ],
        message_for_agent=text(item.message_for_agent),
        redactions=[sandbox_pb2.Redaction(pattern=name, matches=count) for name, count in item.redactions],
    )
    if item.exit_code is not None:
        message.exit_code = item.exit_code
    elif item.signal is not None:
        message.signal = item.signal
    return message


def usage(item: Usage) -> sandbox_pb2.Usage:
    """-1 of the model, not measured here, is an unset field."""
    return sandbox_pb2.Usage(
        wall_seconds=item.wall_seconds,
        cpu_user_seconds=_measured(item.cpu_user_seconds),
        cpu_system_seconds=_measured(item.cpu_system_seconds),
        peak_memory_bytes=_counted(item.peak_memory_bytes),
        peak_pids=_counted(item.peak_pids),
        io_read_bytes=_counted(item.io_read_bytes),
        io_write_bytes=_counted(item.io_write_bytes),
        stdout_bytes=item.stdout_bytes,
        stderr_bytes=item.stderr_bytes,
    )


def report(item: EnforcementReport) -> enforcement_pb2.EnforcementReport:
    return enforcement_pb2.EnforcementReport(
        runtime=ISOLATIONS[item.runtime], rows=rows(item.rows), warnings=[text(warning) for warning in item.warnings]
    )


@lru_cache(maxsize=64)
def _report(item: EnforcementReport) -> enforcement_pb2.EnforcementReport:
    """Executions of one profile have equal reports, and building one costs more than the rest of an answer."""
    return report(item)


def rows(items: Iterable[EnforcementRow]) -> list[enforcement_pb2.EnforcementRow]:
    return [
        enforcement_pb2.EnforcementRow(
            guarantee=item.guarantee.value, state=_STATES[item.state], layers=item.layers, reason=text(item.reason)
        )
        for item in items
    ]


def capabilities(item: RuntimeCapabilities) -> node_pb2.RuntimeCapabilities:
    return node_pb2.RuntimeCapabilities(
        isolation=ISOLATIONS[item.isolation], mode=text(item.mode), rows=rows(item.rows)
    )


def limits(item: Limits) -> enforcement_pb2.Limits:
    return enforcement_pb2.Limits(
        wall_seconds=item.wall_seconds,
        idle_seconds=item.idle_seconds,
        cpu_seconds=item.cpu_seconds,
        cpus=item.cpus,
        memory_bytes=item.memory_bytes,
        pids=item.pids,
        open_files=item.open_files,
        file_size_bytes=item.file_size_bytes,
        workspace_bytes=item.workspace_bytes,
        workspace_inodes=item.workspace_inodes,
        tmp_bytes=item.tmp_bytes,
        tmp_inodes=item.tmp_inodes,
        stdout_bytes=item.stdout_bytes,
        stderr_bytes=item.stderr_bytes,
        output_bytes=item.output_bytes,
        output_files_bytes=item.output_files_bytes,
        output_files=item.output_files,
        io_read_bytes_per_second=item.io_read_bytes_per_second,
        io_write_bytes_per_second=item.io_write_bytes_per_second,
    )


def execution(record: ExecutionRecord) -> sandbox_pb2.Execution:
    return sandbox_pb2.Execution(
        execution_id=record.execution_id,
        sandbox_id=record.sandbox_id,
        subject=text(record.subject),
        profile=text(record.profile),
        isolation=ISOLATIONS[record.report.runtime] if record.report else enforcement_pb2.ISOLATION_UNSPECIFIED,
        command=text(record.command),
        labels={text(name): text(value) for name, value in record.labels},
        state=_EXECUTION_STATES[record.state],
        started_at=timestamp(record.requested_at),
        ended_at=None if record.ended_at is None else timestamp(record.ended_at),
        result=None if record.outcome is None else result(record.outcome, 0),
        frozen=record.frozen,
        held=record.held,
    )


def timestamp(epoch_seconds: float) -> Timestamp:
    whole = int(epoch_seconds)
    return Timestamp(seconds=whole, nanos=int((epoch_seconds - whole) * 1_000_000_000))


def _fitting(files: tuple[OutputFile, ...], room_bytes: int) -> tuple[list[OutputFile], list[tuple[str, str]]]:
    kept: list[OutputFile] = []
    left_out: list[tuple[str, str]] = []
    for file in files:
        size = len(file.content) + 4 * len(file.path) + FILES_OVERHEAD_BYTES
        if size <= room_bytes:
            room_bytes -= size
            kept.append(file)
        else:
            left_out.append((file.path, TOO_LARGE))
    return kept, left_out


def _measured(value: float) -> float | None:
    return value if value >= 0 else None


def _counted(value: int) -> int | None:
    return value if value >= 0 else None
