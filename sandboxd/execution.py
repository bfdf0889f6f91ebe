"""The straight line of one Execute: record, admit, resolve, decide, plan, launch, supervise, record.

Each line runs in a task of its own that nothing cancels: a client that goes away asks for the end, and the line then
destroys what it made and closes its audit span at its own pace. Never starts anything before it is on record. Called by
`rpc`; composed in `daemon`.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

from sandboxd.admission import Admission
from sandboxd.analysis.analyser import NOTHING, Analyser, Analysis, code_of
from sandboxd.approval import binding
from sandboxd.approval.answer import APPROVAL_REQUIRED
from sandboxd.approval.binding import Content
from sandboxd.errors import AuditUnavailable, PolicyDenied, RuntimeFailed, SandboxdError, Unenforceable
from sandboxd.event import EXCERPT_CHARS
from sandboxd.gate import Gate, Subject, require_allowed
from sandboxd.lifecycle import ExecutionRecord, Registry
from sandboxd.mediation import ExecMediator
from sandboxd.model import (
    Accepted,
    Caller,
    Chunk,
    Decision,
    EndReason,
    EnforcementReport,
    ExecuteRequest,
    Isolation,
    Outcome,
    Usage,
    Verdict,
)
from sandboxd.output import Queue
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.profile.load import ProfileSet
from sandboxd.profile.plan import Plan, plan
from sandboxd.profile.resolve import ResolvedProfile, oblige, tighten
from sandboxd.profile_use import asked_of, use_profile
from sandboxd.redaction.redaction import Redaction, Redactions
from sandboxd.refusals import Refusals
from sandboxd.requested import refuse_reserved, start_of
from sandboxd.runtime.base import Runtime
from sandboxd.span import EventLog, Span, command_of, redacted_input
from sandboxd.supervise import Clock, Supervision
from sandboxd.suspension import Dossier, Suspension
from sandboxd.telemetry.timeline import Ending, Step, Trace, Untraced
from sandboxd.trace_context import TraceContext, context_of

Item = Accepted | Chunk | Outcome

REFUSALS_PER_MINUTE = 120  # of each caller are on record one by one, unless the node is told otherwise

log = logging.getLogger(__name__)


def new_id() -> str:
    """128 random bits."""
    return secrets.token_hex(16)


class Executor:
    """What every line needs. `profiles` is asked once for each line, so a reload never changes a running one."""

    def __init__(
        self,
        profiles: Callable[[], ProfileSet],
        gate: Gate,
        runtimes: Mapping[Isolation, Runtime],
        recorder: EventLog,
        admission: Admission,
        registry: Registry,
        analyser: Analyser,
        clock: Clock,
        ids: Callable[[], str] = new_id,
        redactions: Redactions | None = None,
        refusals: Refusals | None = None,
        trace: Callable[[TraceContext], Trace] = Untraced,
    ) -> None:
        self.profiles = profiles
        self.gate = gate
        self.runtimes = runtimes
        self.recorder = recorder
        self.admission = admission
        self.registry = registry
        self.analyser = analyser
        self.clock = clock
        self.ids = ids
        self.redactions = redactions or Redactions()
        self.refusals = refusals or Refusals(REFUSALS_PER_MINUTE, time.monotonic)
        self.trace = trace
        self._lines: set[asyncio.Task[Outcome]] = set()

    async def execute(self, request: ExecuteRequest, caller: Caller) -> AsyncGenerator[Item, None]:
        """Accepted, then chunks, then the Outcome; or an error of `errors` before anything ran.

        Closing it early (`aclose`, or cancelling whoever iterates) ends the execution as CANCELLED, and returns only
        when nothing of it is left.
        """
        line = _Line(self, request, caller)
        task = asyncio.get_running_loop().create_task(line.run())
        self._lines.add(task)
        task.add_done_callback(self._forget)
        try:
            if (accepted := await line.accepted) is not None:
                yield accepted
            while (chunk := await line.queue.get()) is not None:
                yield chunk
            outcome = await line.outcome
            yield outcome if outcome is not None else await task
        finally:
            # With the outcome told the line only tidies up, at its own pace and still holding its slot.
            if not task.done() and not line.outcome.done():
                line.end(EndReason.CANCELLED)
                line.queue.abandon()
                await asyncio.wait({task})

    async def settled(self) -> None:
        """Until no line is left, also those whose clients have gone."""
        while self._lines:
            await asyncio.wait(self._lines)

    def _forget(self, task: asyncio.Task[Outcome]) -> None:
        self._lines.discard(task)
        if task.cancelled() or (error := task.exception()) is None or isinstance(error, SandboxdError):
            return
        log.error("execution broke", exc_info=error)


class _Line:
    """One execution on its way. Implements `lifecycle.Running`."""

    def __init__(self, executor: Executor, request: ExecuteRequest, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[Accepted | None] = loop.create_future()
        self.outcome: asyncio.Future[Outcome | None] = loop.create_future()  # None: the line's error tells
        self.queue = Queue()
        self._executor = executor
        self._request = request
        self._caller = caller
        self._execution_id = executor.ids()
        self._sandbox_id = executor.ids()
        context = context_of(request.traceparent, request.tracestate, executor.ids)
        self._trace = executor.trace(context)
        self._failure = ""  # why nothing ran, if not for policy
        self._span = Span(executor.recorder, caller, self._execution_id, self._sandbox_id, context.trace_id)
        self._span.redaction = executor.redactions.of_requests
        self._span_open = False
        self._redaction: Redaction | None = None
        self._asked: EndReason | None = None
        self.suspension: Suspension | None = None
        self._supervision: Supervision | None = None
        self._subject: Subject
        self._mediator: ExecMediator | None = None
        self._parked: asyncio.Task[bool] | None = None
        self._patience_ends = 0.0

    def end(self, reason: EndReason) -> None:
        self._asked = self._asked or reason
        if self._parked is not None:
            self._parked.cancel()
        if self._supervision is not None:
            self._supervision.end(reason)

    async def signal(self, signum: int) -> None:
        if self._supervision is not None:
            await self._supervision.signal(signum)

    async def run(self) -> Outcome:
        outcome = self._outcome_without_run(EndReason.RUNTIME_FAILED)
        if self._executor.refusals.are_counted(self._caller):
            self._span.hold()
        try:
            await self._span.requested(self._request)
            self._span_open = True
            outcome = await self._admitted()
        except PolicyDenied as denied:
            outcome = self._outcome_without_run(EndReason.POLICY_DENIED)
            self._counted(denied)
            raise
        except SandboxdError as error:
            self._failure = error.reason
            await self._refused(error)
            raise
        except OSError as error:
            failure = RuntimeFailed("the execution could not be prepared; the log of the node says why")
            self._failure = failure.reason
            self._complain("preparing failed", error)
            await self._refused(failure)
            raise failure from error
        finally:
            await self._ended(outcome)
            self._trace.close(self._ending(outcome))
            for told in (self.accepted, self.outcome):
                if not told.done():
                    told.set_result(None)
            self.queue.close()
        return outcome

    # --- the steps

    async def _admitted(self) -> Outcome:
        """Steps 2 to 7, again from the start if they were parked and then approved. No slot is held meanwhile."""
        while True:
            self._trace.begin(Step.ADMISSION)
            try:
                with self._executor.admission.slot(self._caller.tenant):
                    return await self._registered()
            except PolicyDenied as denied:
                if not await self._approved(denied):
                    raise

    async def _approved(self, denied: PolicyDenied) -> bool:
        """Whether the approval that is missing came, within the time that this node lets an Execute wait for it."""
        executor, approvals = self._executor, self._executor.gate.approvals
        if approvals is None or not approvals.wait_seconds or denied.reason != APPROVAL_REQUIRED:
            return False
        self._trace.begin(Step.APPROVAL)
        now = executor.clock.time()
        self._patience_ends = self._patience_ends or now + approvals.wait_seconds
        executor.registry.add(self._record(), self)
        try:
            await self._span.release()
            self._parked = asyncio.create_task(approvals.granted(denied.approval_id, self._patience_ends - now))
            if self._asked is not None:
                self._parked.cancel()
            await asyncio.wait({self._parked})
            return not self._parked.cancelled() and self._parked.result()
        finally:
            executor.registry.forget(self._execution_id)

    async def _registered(self) -> Outcome:
        registry, sightings = self._executor.registry, self._executor.gate.sightings
        registry.add(self._record(), self)
        sightings.begin(self._sandbox_id)
        try:
            profile, planned, runtime = await self._decided()
            if self._asked is EndReason.CANCELLED:
                return self._outcome_without_run(EndReason.CANCELLED)
            return await self._launched(profile, planned, runtime)
        finally:
            sightings.end(self._sandbox_id)
            registry.forget(self._execution_id)

    async def _decided(self) -> tuple[ResolvedProfile, Plan, Runtime]:
        """Steps 3 to 5: profile, decision, plan."""
        self._trace.begin(Step.PROFILE)
        refuse_reserved(self._request)
        executor, request = self._executor, self._request
        named, redactable = executor.profiles().get(request.profile), executor.redactions.known
        profile = tighten(named, request)
        asked = asked_of(request, profile, named)
        use = await use_profile(executor.gate, self._span, self._caller, self._about(profile), asked, redactable)
        profile = oblige(profile, use.obligations, named)
        analysis = await self._analysed()
        self._trace.begin(Step.DECISION)
        self._subject = self._about(profile)
        engine = executor.gate.engine.name
        decision = await executor.gate.decide(start_of(request, profile, analysis), self._caller, self._subject)
        self._trace.decided(decision, engine)
        if names := use.obligations.redact + decision.obligations.redact:
            self._redact(names)
        await self._span.decided("execution.start", decision, engine, use.revision)
        require_allowed(decision, redactable)
        profile = oblige(profile, decision.obligations, named)
        self._trace.begin(Step.ACQUIRE)
        runtime, offered = self._runtime(profile.isolation), self._trace.environment
        planned = plan(profile, request, runtime.probe(), self._sandbox_id, self._execution_id, offered)
        planned = replace(planned, report=_with_warnings(_with_warnings(planned.report, use), decision))
        return profile, planned, runtime

    def _redact(self, names: tuple[str, ...]) -> None:
        """From now on: of what the program makes, and of what is told and recorded about it."""
        redactions = self._executor.redactions
        self._redaction = redactions.demanded(names)
        self._span.redaction = redactions.on_record(names)
        self._executor.registry.redacted(self._execution_id, self._command())

    def _about(self, profile: ResolvedProfile) -> Subject:
        return Subject(
            ProfileFacts(profile.name, profile.digest, profile.labels),
            SandboxFacts(self._sandbox_id, profile.isolation),
            self._content,
            self._execution_id,
            self._span.trace_id,
            self._trace.headers,
        )

    def _content(self) -> Content:
        digest = self._executor.recorder.digest.of
        return binding.execution(self._request, lambda: redacted_input(self._request, self._caller, digest))

    async def _analysed(self) -> Analysis:
        """Of the program's source; one that has none costs nothing."""
        code = code_of(self._request.program)
        if code is None:
            return NOTHING
        self._trace.begin(Step.ANALYSIS)
        return await self._executor.analyser.analyse(code, f"{self._caller.tenant}/{self._caller.subject}")

    async def _launched(self, profile: ResolvedProfile, planned: Plan, runtime: Runtime) -> Outcome:
        """Steps 6 and 7. From the launch on, every way out destroys the sandbox."""
        await self._span.release()
        sandbox = await runtime.launch(planned.launch)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(sandbox.destroy)
            await self._span.started(profile.name, profile.digest, planned.report, sandbox.host_uid)
            if profile.spec.mediate or profile.spec.report:
                sandbox.mediate(self._mediated())
            supervision = Supervision(sandbox, planned.exec, self._executor.clock, self.queue, self._redaction)
            # From here to its registration nothing else gets a turn: a quarantine finds it there, or is seen here.
            self._executor.gate.require_free(self._caller)
            undo.pop_all()
        self._supervision = supervision
        self.suspension = Suspension(runtime, supervision, Dossier(self._subject, planned.exec.limits))
        self._executor.registry.started(self._execution_id, planned.report)
        self.queue.on_chunk = self._keep
        if self._asked is not None:
            supervision.end(self._asked)
        self._accept(profile, planned.report)
        self._trace.begin(Step.RUN)
        return await supervision.run(self._told)

    def _mediated(self) -> ExecMediator:
        executor, subject = self._executor, self._subject
        since = executor.clock.time()

        def older() -> Subject:
            sandbox = replace(subject.sandbox, age_seconds=executor.clock.time() - since)
            return replace(subject, sandbox=sandbox, trace=self._trace.headers)

        self._mediator = ExecMediator(executor.gate, self._span, self._caller, older, self._redaction)
        return self._mediator

    async def _told(self, outcome: Outcome) -> None:
        """Nothing of the program is alive any more: on record first, then to the caller."""
        if self._mediator is not None:
            await self._mediator.settled()
            outcome = self._mediator.amended(outcome)
        if self._redaction is not None:
            outcome = self._redaction.outcome(outcome)
        self._executor.registry.ended(self._execution_id, outcome)
        self._executor.gate.left(self._caller.tenant, _bytes_out(outcome))
        await self._ended(outcome)
        self.outcome.set_result(outcome)
        self._trace.stop()

    def _accept(self, profile: ResolvedProfile, report: EnforcementReport) -> None:
        if not self.accepted.done():  # it is when the client has gone
            revision = self._span.policy_revision
            self.accepted.set_result(
                Accepted(self._execution_id, self._sandbox_id, profile.name, profile.digest, revision, report)
            )

    def _keep(self, chunk: Chunk) -> None:
        self._executor.registry.keep(self._execution_id, chunk)

    # --- how the span closes

    async def _refused(self, error: SandboxdError) -> None:
        """Nothing ran. If this cannot be recorded either, the caller still gets the first error."""
        if not self._span_open or self._counted(error):
            return
        self._span_open = False
        try:
            await self._span.refused(error)
        except AuditUnavailable as unavailable:
            self._complain("refusal is not on record", unavailable)

    def _counted(self, error: SandboxdError) -> bool:
        """Whether this caller has had its share of refusals on record, and no more of this one is than a number."""
        if self._span.holds:
            self._span_open = False
            self._executor.refusals.count(self._span.refusal(error))
            return True
        self._executor.refusals.recorded(self._caller)
        return False

    async def _ended(self, outcome: Outcome) -> None:
        """The caller's result stands whether this can be recorded or not; the recorder then refuses what comes next."""
        if not self._span_open:
            return
        self._span_open = False
        if self._span.holds:  # it ran no more than what is refused, and was cancelled
            self._executor.refusals.count(self._span.withdrawn(outcome.end_reason))
            return
        try:
            await self._span.ended(outcome)
        except AuditUnavailable as unavailable:
            self._complain("end is not on record", unavailable)

    def _complain(self, message: str, error: Exception) -> None:
        log.error(message, extra={"execution_id": self._execution_id, "error": str(error)})

    def _record(self) -> ExecutionRecord:
        return ExecutionRecord(
            execution_id=self._execution_id,
            sandbox_id=self._sandbox_id,
            tenant=self._caller.tenant,
            subject=self._caller.subject,
            profile=self._request.profile,
            command=self._command(),
            labels=self._request.labels,
        )

    def _ending(self, outcome: Outcome) -> Ending:
        revision, redaction = self._span.policy_revision, self._span.redaction
        return Ending(self._request, self._caller.tenant, self._sandbox_id, revision, outcome, self._failure, redaction)

    def _command(self) -> str:
        command, redaction = command_of(self._request), self._span.redaction
        return (command if redaction is None else redaction.text(command))[:EXCERPT_CHARS]

    def _outcome_without_run(self, reason: EndReason) -> Outcome:
        return Outcome(
            execution_id=self._execution_id,
            end_reason=reason,
            exit_code=None,
            signal=None,
            usage=Usage(wall_seconds=0.0),
            message_for_agent="Nothing was run.",
        )

    def _runtime(self, isolation: Isolation) -> Runtime:
        runtime = self._executor.runtimes.get(isolation)
        if runtime is None:
            raise Unenforceable(
                f"runtime {isolation.value!r} is not configured on this node; add it under 'runtimes'",
                reason="runtime_missing",
            )
        return runtime


def _bytes_out(outcome: Outcome) -> int:
    usage = outcome.usage
    return usage.stdout_bytes + usage.stderr_bytes + sum(len(file.content) for file in outcome.files)


def _with_warnings(report: EnforcementReport, decision: Decision) -> EnforcementReport:
    if decision.verdict is not Verdict.WARN:
        return report
    warned = tuple(f"policy warns, {reason.code}: {reason.message}" for reason in decision.reasons)
    return replace(report, warnings=report.warnings + warned)
