"""The audit span of one execution: opens with execution.requested, closes with execution.ended or execution.refused.

Holds the ids that every event carries, so that no event of a line can forget one. Tenant text is only ever a field
value, which the recorder cuts; values of the environment, stdin and file contents never reach the record, and neither
does what `redaction` takes out. Called by `execution` alone.
"""

import hashlib
import json
from collections.abc import Callable
from errno import errorcode
from typing import Protocol

from sandboxd.action import ProcessExec
from sandboxd.audit.digest import Digest
from sandboxd.ending import cpu_seconds
from sandboxd.errors import SandboxdError
from sandboxd.event import (
    Event,
    ExecutionEnded,
    ExecutionRefused,
    ExecutionRequested,
    ExecutionStarted,
    PolicyDecided,
    ProcessExecDecided,
    SandboxViolated,
    SyscallDenied,
)
from sandboxd.model import (
    ArgvProgram,
    Caller,
    Decision,
    EndReason,
    EnforcementReport,
    EnforcementRow,
    ExecuteRequest,
    Outcome,
    RefusedCalls,
    SandboxUsage,
    State,
)
from sandboxd.redaction.redaction import Redaction


class EventLog(Protocol):
    """What the span needs of `audit.recorder.Recorder`."""

    @property
    def digest(self) -> Digest: ...

    async def record(self, event: Event) -> int: ...

    def store(self, document: bytes) -> str: ...


def command_of(request: ExecuteRequest) -> str:
    """What a person recognises the program by, whole; cut it where it is shown."""
    if isinstance(request.program, ArgvProgram):
        return " ".join(request.program.argv)
    return request.program.source


def redacted_input(request: ExecuteRequest, caller: Caller, digest: Callable[[bytes], str]) -> bytes:
    """The request as canonical JSON with secrets left out: enough to replay the decision that was taken on it.

    `digest` is keyed: standard input and files may be secret, and short.
    """
    program: dict[str, object]
    if isinstance(request.program, ArgvProgram):
        program = {"argv": request.program.argv}
    else:
        program = {"language": request.program.language, "source": request.program.source}
    agent = request.agent
    document = {
        "type": "execution.start",
        "caller": {
            "tenant": caller.tenant,
            "subject": caller.subject,
            "roles": caller.roles,
            "method": caller.method,
        },
        "program": program,
        "profile": request.profile,
        "stdin": {"bytes": len(request.stdin), "hmac": digest(request.stdin)},
        "env": [name for name, _ in request.env],
        "cwd": request.cwd,
        "files": [
            {"path": file.path, "mode": file.mode, "bytes": len(file.content), "hmac": digest(file.content)}
            for file in request.files
        ],
        "collect": request.collect,
        "limits": dict(request.limits),
        "network": request.network,
        "labels": request.labels,
        "isolation": request.isolation,
        "agent": {
            "name": agent.name,
            "session_id": agent.session_id,
            "tool_name": agent.tool_name,
            "tool_use_id": agent.tool_use_id,
        },
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


class Span:
    """Every method raises `AuditUnavailable` if the event is not on record when it returns.

    Between `hold` and `release` nothing is written, and nothing may run: what is then refused leaves no record but a
    count (`refusals`).
    """

    def __init__(self, log: EventLog, caller: Caller, execution_id: str, sandbox_id: str, trace_id: str) -> None:
        self.policy_revision = ""
        self.trace_id = trace_id
        self.redaction: Redaction | None = None  # of what is written from now on
        self._log = log
        self._held: list[Event | bytes] | None = None
        self._caller = caller
        self._execution_id = execution_id
        self._sandbox_id = sandbox_id

    @property
    def holds(self) -> bool:
        return self._held is not None

    def hold(self) -> None:
        self._held = []

    async def release(self) -> None:
        """From now on what is told is written, and first of all what was until now."""
        held, self._held = self._held or (), None
        for each in held:
            if isinstance(each, bytes):
                self._log.store(each)
            else:
                await self._log.record(each)

    async def requested(self, request: ExecuteRequest) -> None:
        input_sha256 = self._stored(redacted_input(request, self._caller, self._log.digest.of))
        if self.redaction is not None:
            request = self.redaction.request(request)
        command = command_of(request)
        language = "" if isinstance(request.program, ArgvProgram) else request.program.language
        await self._record(
            ExecutionRequested(
                *self._ids(),
                profile=request.profile,
                command=command,
                command_hmac=self._log.digest.of_text(command),
                language=language,
                input_sha256=input_sha256,
                agent_name=request.agent.name,
                agent_session_id=request.agent.session_id,
                tool_name=request.agent.tool_name,
                tool_use_id=request.agent.tool_use_id,
                labels=request.labels,
                caller_roles=self._caller.roles,
                caller_method=self._caller.method,
            )
        )

    async def decided(self, action: str, decision: Decision, engine: str, profile_revision: str = "") -> None:
        self.policy_revision = decision.revision
        input_sha256 = self._stored(decision.input_json)
        await self._record(
            PolicyDecided(
                *self._ids(),
                action=action,
                verdict=decision.verdict,
                reason_codes=tuple(reason.code for reason in decision.reasons),
                input_sha256=input_sha256,
                engine=engine,
                remembered=decision.remembered,
                profile_revision=profile_revision,
            )
        )

    async def started(self, profile: str, profile_digest: str, report: EnforcementReport, host_uid: int) -> None:
        await self._record(
            ExecutionStarted(
                *self._ids(),
                profile=profile,
                profile_digest=profile_digest,
                runtime=report.runtime,
                degraded=_in_state(report.rows, State.DEGRADED),
                absent=_in_state(report.rows, State.ABSENT),
                warnings=report.warnings,
                host_uid=host_uid,
            )
        )

    async def exec_decided(
        self, action: ProcessExec, decision: Decision, engine: str, layer: str, count: int = 1
    ) -> None:
        image, command, cwd = action.image, " ".join(action.argv), action.cwd
        if self.redaction is not None:
            image, command, cwd = map(self.redaction.text, (image, command, cwd))
        await self._record(
            ProcessExecDecided(
                *self._ids(decision.revision),
                image=image,
                command=command,
                arguments=len(action.argv),
                cwd=cwd,
                pid=action.pid,
                parent_pid=action.parent_pid,
                verdict=decision.verdict,
                reason_codes=tuple(reason.code for reason in decision.reasons),
                input_sha256=self._stored(decision.input_json),
                engine=engine,
                remembered=decision.remembered,
                layer=layer,
                count=count,
                suppressed=count - 1,
            )
        )

    async def syscalls_denied(self, name: str, calls: RefusedCalls) -> None:
        await self._record(
            SyscallDenied(
                *self._ids(),
                name=name,
                number=calls.number,
                pid=calls.pid,
                errno=errorcode.get(calls.errno, str(calls.errno)),
                reason=calls.reason,
                count=calls.count,
                suppressed=calls.count - 1,
                layer="seccomp" if calls.reason == "profile" else "init",
            )
        )

    async def refused(self, error: SandboxdError) -> None:
        await self._record(self.refusal(error))

    def refusal(self, error: SandboxdError) -> ExecutionRefused:
        """What `refused` puts on record."""
        message = error.message if self.redaction is None else self.redaction.text(error.message)
        return ExecutionRefused(*self._ids(), reason=error.reason, message=message)

    def withdrawn(self, reason: EndReason) -> ExecutionRefused:
        """What stands for an execution that was given up before anything of it was on record."""
        return ExecutionRefused(*self._ids(), reason=reason.value.lower(), message="its caller gave it up")

    async def ended(self, outcome: Outcome) -> None:
        for violation in outcome.violations:
            await self._record(
                SandboxViolated(*self._ids(), layer=violation.layer, code=violation.code, detail=violation.detail)
            )
        usage = outcome.usage
        await self._record(
            ExecutionEnded(
                *self._ids(),
                end_reason=outcome.end_reason,
                exit_code=outcome.exit_code,
                signal=outcome.signal,
                wall_seconds=usage.wall_seconds,
                cpu_seconds=cpu_seconds(SandboxUsage(usage.cpu_user_seconds, usage.cpu_system_seconds)),
                peak_memory_bytes=usage.peak_memory_bytes,
                stdout_bytes=usage.stdout_bytes,
                stderr_bytes=usage.stderr_bytes,
                limits_hit=tuple(limit.value for limit in outcome.limits_hit),
                violations=tuple(f"{violation.layer}:{violation.code}" for violation in outcome.violations),
                redactions=outcome.redactions,
            )
        )

    def _stored(self, input_json: bytes) -> str:
        if not input_json:
            return ""  # the action could not even be written as an input
        document = input_json if self.redaction is None else self.redaction.document(input_json)
        if self._held is None:
            return self._log.store(document)
        self._held.append(document)
        return _sha256(document)

    async def _record(self, event: Event) -> None:
        if self._held is None:
            await self._log.record(event)
        else:
            self._held.append(event)

    def _ids(self, revision: str = "") -> tuple[str, str, str, str, str, str]:
        """The fields common to all events, in their order; of another decision than the one to start, its revision."""
        caller = self._caller
        return (
            caller.tenant,
            caller.subject,
            self._execution_id,
            self._sandbox_id,
            revision or self.policy_revision,
            self.trace_id,
        )


def _in_state(rows: tuple[EnforcementRow, ...], state: State) -> tuple[str, ...]:
    return tuple(row.guarantee.value for row in rows if row.state is state)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
