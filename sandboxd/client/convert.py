"""Turns messages of `sandboxd.v1` into the SDK's own data. Pure; an enum value it does not know becomes UNKNOWN."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from sandboxd.client import model, node
from sandboxd.client.approval import Approval, ApprovalState, ApprovalVote
from sandboxd.client.policy import Policy, PolicyCheck, ShadowPolicy
from sandboxd.client.response import Effect, ExecutionEffect, Quarantine
from sandboxd.rpc.v1 import approval_pb2, enforcement_pb2, node_pb2, policy_pb2, profile_pb2, sandbox_pb2

_ISOLATIONS = {
    enforcement_pb2.ISOLATION_PROCESS: "process",
    enforcement_pb2.ISOLATION_GVISOR: "gvisor",
    enforcement_pb2.ISOLATION_KATA: "kata",
}
_STATES = {
    enforcement_pb2.ENFORCEMENT_STATE_ENFORCED: model.State.ENFORCED,
    enforcement_pb2.ENFORCEMENT_STATE_DEGRADED: model.State.DEGRADED,
    enforcement_pb2.ENFORCEMENT_STATE_ABSENT: model.State.ABSENT,
}
_LEVELS = {
    profile_pb2.ENFORCEMENT_LEVEL_REQUIRE: node.Level.REQUIRE,
    profile_pb2.ENFORCEMENT_LEVEL_BEST_EFFORT: node.Level.BEST_EFFORT,
}
_EXECUTION_STATES = {
    sandbox_pb2.EXECUTION_STATE_STARTING: node.ExecutionState.STARTING,
    sandbox_pb2.EXECUTION_STATE_RUNNING: node.ExecutionState.RUNNING,
    sandbox_pb2.EXECUTION_STATE_ENDED: node.ExecutionState.ENDED,
}
_APPROVAL_STATES = {
    approval_pb2.ApprovalState.Value(f"APPROVAL_STATE_{state.name}"): state
    for state in ApprovalState
    if state is not ApprovalState.UNKNOWN
}
_EFFECTS = {node_pb2.Effect.Value(f"EFFECT_{effect.name}"): effect for effect in Effect if effect is not Effect.UNKNOWN}
_END_REASONS = {
    sandbox_pb2.EndReason.Value(f"END_REASON_{reason}"): reason
    for reason in model.EndReason
    if reason is not model.EndReason.UNKNOWN
}
_STREAMS = {
    sandbox_pb2.OUTPUT_STREAM_STDOUT: model.Stream.STDOUT,
    sandbox_pb2.OUTPUT_STREAM_STDERR: model.Stream.STDERR,
}


def accepted(message: sandbox_pb2.Accepted) -> model.Accepted:
    return model.Accepted(
        execution_id=message.execution_id,
        sandbox_id=message.sandbox_id,
        profile=message.profile,
        profile_digest=message.profile_digest,
        policy_revision=message.policy_revision,
        enforcement=enforcement(message.enforcement),
    )


def enforcement(message: enforcement_pb2.EnforcementReport) -> model.Enforcement:
    return _enforcement(message.SerializeToString())


@lru_cache(maxsize=64)
def _enforcement(serialized: bytes) -> model.Enforcement:
    """Executions of one profile have equal reports, with more rows than all else of an answer."""
    message = enforcement_pb2.EnforcementReport.FromString(serialized)
    return model.Enforcement(
        runtime=_ISOLATIONS.get(message.runtime, ""),
        rows=_rows(message.rows),
        warnings=tuple(message.warnings),
    )


def chunk(message: sandbox_pb2.OutputChunk) -> model.Chunk | None:
    """None for a stream that this version does not know."""
    stream = _STREAMS.get(message.stream)
    if stream is None:
        return None
    return model.Chunk(stream, message.offset, message.data)


def result(
    message: sandbox_pb2.ExecutionResult,
    report: model.Enforcement,
    stdout: bytes = b"",
    stderr: bytes = b"",
) -> model.Result:
    status = message.WhichOneof("status")
    return model.Result(
        execution_id=message.execution_id,
        end_reason=_END_REASONS.get(message.end_reason, model.EndReason.UNKNOWN),
        exit_code=message.exit_code if status == "exit_code" else None,
        signal=message.signal if status == "signal" else None,
        usage=_usage(message.usage),
        enforcement=report,
        stdout=stdout,
        stderr=stderr,
        stdout_truncated=message.stdout_truncated,
        stderr_truncated=message.stderr_truncated,
        limits_hit=tuple(message.limits_hit),
        violations=tuple(model.Violation(v.layer, v.code, v.detail) for v in message.violations),
        files=tuple(model.OutputFile(f.path, f.content, f.mode) for f in message.files),
        files_skipped=tuple(model.SkippedFile(f.path, f.reason) for f in message.files_skipped),
        message_for_agent=message.message_for_agent,
        redactions=tuple(model.Redaction(r.pattern, r.matches) for r in message.redactions),
    )


def capabilities(message: node_pb2.GetCapabilitiesResponse) -> node.Capabilities:
    return node.Capabilities(
        version=message.version,
        api_versions=tuple(message.api_versions),
        node=message.node,
        kernel=message.kernel,
        mode=message.mode,
        policy_revision=message.policy_revision,
        runtimes=tuple(
            node.RuntimeCapabilities(_ISOLATIONS.get(r.isolation, ""), r.mode, _rows(r.rows)) for r in message.runtimes
        ),
    )


def policy(message: policy_pb2.Policy) -> Policy:
    return Policy(
        engine=message.engine,
        revision=message.revision,
        version=message.version,
        since=moment(message.since),
        files=tuple((file.path, file.sha256) for file in message.files),
        reload_error=message.reload_error,
        reload_failed_at=moment(message.reload_failed_at) if message.HasField("reload_failed_at") else None,
        shadow=_shadow(message.shadow) if message.HasField("shadow") else None,
        breaker=message.breaker,
    )


def _shadow(message: policy_pb2.ShadowPolicy) -> ShadowPolicy:
    return ShadowPolicy(
        revision=message.revision,
        compared=message.compared,
        differed=message.differed,
        failed=message.failed,
        dropped=message.dropped,
        error=message.error,
    )


def policy_check(message: policy_pb2.CheckPolicyResponse) -> PolicyCheck:
    return PolicyCheck(
        verdict=message.verdict,
        reasons=tuple((reason.code, reason.message) for reason in message.reasons),
        message_for_agent=message.message_for_agent,
        obligations_json=message.obligations_json,
        revision=message.revision,
        rules=tuple((rule.path, rule.line, rule.name) for rule in message.rules),
    )


def profile(message: profile_pb2.Profile) -> node.Profile:
    limits = message.limits.ListFields()
    return node.Profile(
        name=message.name,
        description=message.description,
        digest=message.digest,
        isolation=_ISOLATIONS.get(message.isolation, ""),
        limits=tuple((field.name, value) for field, value in limits),
        network=message.network,
        env=tuple(sorted(message.env.items())),
        env_allowed=tuple(message.env_allowed),
        cwd=message.cwd,
        interpreters=tuple(node.Interpreter(i.language, tuple(i.argv)) for i in message.interpreters),
        requirements=tuple((r.guarantee, _LEVELS.get(r.level, node.Level.UNKNOWN)) for r in message.requirements),
        labels=tuple(sorted(message.labels.items())),
        warnings=tuple(message.warnings),
        spec_json=message.spec_json,
    )


def execution(message: sandbox_pb2.Execution) -> node.Execution:
    return node.Execution(
        execution_id=message.execution_id,
        sandbox_id=message.sandbox_id,
        subject=message.subject,
        profile=message.profile,
        isolation=_ISOLATIONS.get(message.isolation, ""),
        command=message.command,
        labels=tuple(sorted(message.labels.items())),
        state=_EXECUTION_STATES.get(message.state, node.ExecutionState.UNKNOWN),
        started_at=moment(message.started_at) if message.HasField("started_at") else None,
        ended_at=moment(message.ended_at) if message.HasField("ended_at") else None,
        result=result(message.result, model.Enforcement()) if message.HasField("result") else None,
        frozen=message.frozen,
        held=message.held,
    )


def approval(message: approval_pb2.Approval) -> Approval:
    return Approval(
        approval_id=message.approval_id,
        state=_APPROVAL_STATES.get(message.state, ApprovalState.UNKNOWN),
        action_type=message.action_type,
        requester=message.requester,
        method=message.method,
        profile=message.profile,
        profile_digest=message.profile_digest,
        policy_revision=message.policy_revision,
        reasons=tuple(message.reasons),
        shown=message.shown,
        shown_bytes=message.shown_bytes,
        shown_sha256=message.shown_sha256,
        binding_sha256=message.binding_sha256,
        approvers=tuple(message.approvers),
        quorum=message.quorum,
        votes=tuple(ApprovalVote(v.approver, v.approve, v.comment, moment(v.voted_at)) for v in message.votes),
        requested_at=moment(message.requested_at),
        expires_at=moment(message.expires_at),
        execution_id=message.execution_id,
    )


def effect(message: node_pb2.ExecutionEffect) -> ExecutionEffect:
    return ExecutionEffect(message.execution_id, _EFFECTS.get(message.effect, Effect.UNKNOWN))


def quarantine(message: node_pb2.Quarantine) -> Quarantine:
    return Quarantine(message.tenant, message.subject, moment(message.since), message.by, message.rule, message.comment)


def _rows(rows: Iterable[enforcement_pb2.EnforcementRow]) -> tuple[model.EnforcementRow, ...]:
    return tuple(
        model.EnforcementRow(r.guarantee, _STATES.get(r.state, model.State.UNKNOWN), tuple(r.layers), r.reason)
        for r in rows
    )


def _usage(message: sandbox_pb2.Usage) -> model.Usage:
    return model.Usage(
        wall_seconds=message.wall_seconds,
        cpu_user_seconds=message.cpu_user_seconds if message.HasField("cpu_user_seconds") else None,
        cpu_system_seconds=message.cpu_system_seconds if message.HasField("cpu_system_seconds") else None,
        peak_memory_bytes=message.peak_memory_bytes if message.HasField("peak_memory_bytes") else None,
        peak_pids=message.peak_pids if message.HasField("peak_pids") else None,
        io_read_bytes=message.io_read_bytes if message.HasField("io_read_bytes") else None,
        io_write_bytes=message.io_write_bytes if message.HasField("io_write_bytes") else None,
        stdout_bytes=message.stdout_bytes,
        stderr_bytes=message.stderr_bytes,
    )


def moment(message: Timestamp) -> datetime | None:
    """None for what is no time, which no daemon of ours sends."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except ValueError:
        return None
