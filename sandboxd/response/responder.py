"""The straight line of one response: who may, what it concerns, policy, then the measure, and both on record.

Each response is an action of its own (`sandbox.pause`, `sandbox.resume`, `sandbox.delete`), decided by policy before it
is carried out. Never does less than it says: what a quarantine cannot freeze it kills. Called by `rpc` and by the
response listener; composed in `daemon`.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sandboxd.action import Action, SandboxDelete, SandboxPause, SandboxResume, SandboxSnapshot
from sandboxd.errors import (
    CallerRefused,
    InvalidRequest,
    NotFound,
    PolicyDenied,
    RuntimeFailed,
    SandboxdError,
    Unenforceable,
)
from sandboxd.event import ResponseRefused, ResponseTaken
from sandboxd.gate import QUARANTINED, Gate, Subject, require_allowed
from sandboxd.lifecycle import ExecutionRecord, ExecutionState, Registry, Running
from sandboxd.model import LOCAL_TENANT, OPERATOR, Caller, EndReason, Isolation
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.response.demand import Demand, Effect, Kind, Measure, Taken, Target
from sandboxd.response.quarantine import MOST, Quarantine, Quarantines
from sandboxd.span import EventLog, Span
from sandboxd.suspension import Suspension, ended

_ACTIONS: dict[Measure, Action] = {
    Measure.FREEZE: SandboxPause(),
    Measure.THAW: SandboxResume(),
    Measure.KILL: SandboxDelete(),
    Measure.QUARANTINE: SandboxPause(),
    Measure.LIFT: SandboxResume(),
    Measure.EXAMINE: SandboxSnapshot("forensics"),
}
_SUBJECT = re.compile(r"uid:(0|[1-9][0-9]{0,9})", re.ASCII)
_NO_PROFILE = ProfileFacts("", "", ())
SHOWN_ID_CHARS = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whom a quarantine concerns: a whole tenant where `subject` is empty."""

    tenant: str
    subject: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What a target names. `named`: by the id of one execution, so that its state is worth an error."""

    owner: _Owner
    living: tuple[tuple[ExecutionRecord, Running], ...]
    record: ExecutionRecord | None
    named: bool


class Responder:
    def __init__(
        self,
        gate: Gate,
        registry: Registry,
        quarantines: Quarantines,
        log: EventLog,
        now: Callable[[], float],
    ) -> None:
        self.quarantines = quarantines
        self._gate = gate
        self._registry = registry
        self._log = log
        self._now = now
        self._under_way: set[asyncio.Task[Taken]] = set()
        self._turn = asyncio.Lock()  # one response after the other: each finds what the one before has left

    async def respond(self, demand: Demand, caller: Caller, trace_id: str) -> Taken:
        """What became of it; an error of `errors` if nothing was done, which is then on record.

        Carried through also if whoever asks goes away: a quarantine is not left half done.
        """
        require_operator(caller)
        task = asyncio.get_running_loop().create_task(self._respond(demand, caller, trace_id))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[Taken]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # read: whoever asked may be gone

    async def _respond(self, demand: Demand, caller: Caller, trace_id: str) -> Taken:
        async with self._turn:
            try:
                found = self._find(demand.target)
                self._require_possible(demand, found)
            except SandboxdError as refusal:
                await self._refused(demand, caller, trace_id, None, refusal)
                raise
            if self._is_so_already(demand, found):
                effects = tuple((record.execution_id, Effect.UNCHANGED) for record, _ in found.living)
            else:
                await self._decided(demand, caller, trace_id, found)
                try:
                    effects = tuple(await self._carry_out(demand, caller, found))
                except SandboxdError as failure:
                    await self._refused(demand, caller, trace_id, found, failure)
                    raise
            taken = Taken(demand.measure, effects)
            await self._log.record(
                ResponseTaken(
                    *self._ids(caller, trace_id, found),
                    measure=demand.measure,
                    target=demand.target.kind,
                    target_id=demand.target.id[:SHOWN_ID_CHARS],
                    mapped_rule=demand.rule,
                    comment=demand.comment,
                    caller_method=caller.method,
                    effects=tuple((execution_id, effect.value) for execution_id, effect in taken.effects),
                )
            )
        return taken

    async def examined(self, target: Target, caller: Caller, trace_id: str) -> tuple[ExecutionRecord, Suspension]:
        """What lives of it, for whoever looks into it, which is on record then. Errors as of `respond`."""
        if target.kind not in (Kind.SANDBOX, Kind.EXECUTION):
            raise InvalidRequest("one sandbox at a time; name it, or its execution")
        await self.respond(Demand(Measure.EXAMINE, target), caller, trace_id)
        for record, running in self._find(target).living:
            if running.suspension is not None:
                return record, running.suspension
        raise ended()

    # --- what it concerns

    def _find(self, target: Target) -> _Found:
        match target.kind:
            case Kind.SANDBOX:
                return self._one(lambda record: record.sandbox_id == target.id)
            case Kind.EXECUTION:
                return self._one(lambda record: record.execution_id == target.id)
            case Kind.TENANT if target.id == LOCAL_TENANT:
                return self._all_of(_Owner(LOCAL_TENANT, ""))
            case Kind.SUBJECT if _SUBJECT.fullmatch(target.id):
                return self._all_of(_Owner(LOCAL_TENANT, target.id))
            case Kind.TENANT | Kind.SUBJECT:
                raise NotFound(f"that names nobody; the tenant here is {LOCAL_TENANT!r}, a subject is uid:NUMBER")

    def _one(self, matches: Callable[[ExecutionRecord], bool]) -> _Found:
        known = self._registry.known(matches)
        if not known:
            raise NotFound("nothing of that id is known here; ps shows what runs, and what ended lately")
        record, running = known[-1]
        living = ((record, running),) if running is not None else ()
        return _Found(_Owner(record.tenant, record.subject), living, record, named=True)

    def _all_of(self, owner: _Owner) -> _Found:
        return _Found(owner, self._living_of(owner), None, named=False)

    def _living_of(self, owner: _Owner) -> tuple[tuple[ExecutionRecord, Running], ...]:
        known = self._registry.known(
            lambda record: record.tenant == owner.tenant and owner.subject in ("", record.subject)
        )
        return tuple((record, running) for record, running in known if running is not None)

    def _require_possible(self, demand: Demand, found: _Found) -> None:
        measure = demand.measure
        if measure is Measure.LIFT:
            if self.quarantines.find(found.owner.tenant, found.owner.subject) is None:
                raise NotFound("no such quarantine is in force; quarantines shows those that are")
        elif measure is Measure.QUARANTINE:
            if len(tuple(self.quarantines)) >= MOST:
                raise Unenforceable(f"{MOST} quarantines are in force; lift some", reason="too_many_quarantines")
        elif found.named and not found.living:
            raise ended()
        elif found.named and measure is not Measure.KILL:
            (record, running) = found.living[0]
            if record.state is ExecutionState.PREPARING or running.suspension is None:
                raise Unenforceable("it is being launched; try again once it runs", reason="not_running")
        if measure is Measure.THAW and any(_held(running) for _, running in found.living):
            raise Unenforceable("it is quarantined; lift the quarantine, which thaws it", reason=QUARANTINED)

    def _is_so_already(self, demand: Demand, found: _Found) -> bool:
        """Then policy is not asked: what a response brings about on record must not bring about another one."""
        suspensions = [running.suspension for _, running in found.living]
        match demand.measure:
            case Measure.FREEZE:
                return all(one is None or one.frozen for one in suspensions)
            case Measure.THAW:
                return not any(one is not None and one.frozen for one in suspensions)
            case Measure.QUARANTINE:
                covered = self.quarantines.covers(found.owner.tenant, found.owner.subject)
                return covered and all(one is None or one.held for one in suspensions)
            case Measure.KILL | Measure.LIFT | Measure.EXAMINE:
                return False

    # --- the measures

    async def _carry_out(self, demand: Demand, caller: Caller, found: _Found) -> Sequence[tuple[str, Effect]]:
        match demand.measure:
            case Measure.FREEZE | Measure.THAW | Measure.KILL:
                measure = _OF_ONE[demand.measure]
                if found.named:  # then why it cannot be is worth an error
                    ((record, running),) = found.living
                    return [(record.execution_id, await measure(running))]
                return await _each(found.living, measure)
            case Measure.QUARANTINE:
                return await self._quarantine(demand, caller, found)
            case Measure.LIFT:
                return await self._lift(found)
            case Measure.EXAMINE:
                return [(record.execution_id, Effect.EXAMINED) for record, _ in found.living]

    async def _quarantine(self, demand: Demand, caller: Caller, found: _Found) -> Sequence[tuple[str, Effect]]:
        owner, failure = found.owner, None
        if not self.quarantines.covers(owner.tenant, owner.subject):
            made = Quarantine(owner.tenant, owner.subject, self._now(), caller.subject, demand.rule, demand.comment)
            try:
                self.quarantines.add(made)
            except OSError as error:
                failure = error
        effects = await _each(self._living_of(owner), _hold)
        if failure is not None:
            log.error("a quarantine cannot be kept on the disk", extra={"error": str(failure)})
            raise RuntimeFailed(
                f"it holds until a restart of the daemon and no longer: {failure.strerror}", reason="not_durable"
            ) from failure
        return effects

    async def _lift(self, found: _Found) -> Sequence[tuple[str, Effect]]:
        owner = found.owner
        quarantine = self.quarantines.find(owner.tenant, owner.subject)
        assert quarantine is not None  # since `_require_possible`, in one turn
        try:
            self.quarantines.remove(quarantine)
        except OSError as error:
            raise RuntimeFailed(f"the quarantine cannot be lifted: {error.strerror}", reason="not_durable") from error
        freed = tuple(
            (record, running)
            for record, running in self._living_of(owner)
            if not self.quarantines.covers(record.tenant, record.subject)
        )
        return await _each(freed, _release)

    # --- policy and record

    async def _decided(self, demand: Demand, caller: Caller, trace_id: str, found: _Found) -> None:
        subject = _subject(found, trace_id)
        action = _ACTIONS[demand.measure]
        engine = self._gate.engine.name
        decision = await self._gate.decide(action, caller, subject)
        await Span(self._log, caller, subject.execution_id, subject.sandbox.id, trace_id).decided(
            action.type, decision, engine
        )
        try:
            require_allowed(decision)
        except PolicyDenied as refusal:
            await self._refused(demand, caller, trace_id, found, refusal)
            raise

    async def _refused(
        self, demand: Demand, caller: Caller, trace_id: str, found: _Found | None, refusal: SandboxdError
    ) -> None:
        await self._log.record(
            ResponseRefused(
                *self._ids(caller, trace_id, found),
                measure=demand.measure,
                target=demand.target.kind,
                target_id=demand.target.id[:SHOWN_ID_CHARS],
                mapped_rule=demand.rule,
                comment=demand.comment,
                caller_method=caller.method,
                reason=refusal.reason,
            )
        )

    def _ids(self, caller: Caller, trace_id: str, found: _Found | None) -> tuple[str, str, str, str, str, str]:
        record = None if found is None else found.record
        tenant = caller.tenant if found is None else found.owner.tenant
        ids = ("", "") if record is None else (record.execution_id, record.sandbox_id)
        return (tenant[:SHOWN_ID_CHARS], caller.subject, *ids, self._gate.engine.revision, trace_id)


async def _each(
    living: tuple[tuple[ExecutionRecord, Running], ...], measure: Callable[[Running], Awaitable[Effect]]
) -> Sequence[tuple[str, Effect]]:
    effects = await asyncio.gather(*(_attempted(running, measure) for _, running in living))
    return [(record.execution_id, effect) for (record, _), effect in zip(living, effects, strict=True)]


async def _attempted(running: Running, measure: Callable[[Running], Awaitable[Effect]]) -> Effect:
    try:
        return await measure(running)
    except (Unenforceable, RuntimeFailed) as error:  # it ended meanwhile, or this node cannot freeze
        log.error("a response failed", extra={"error": str(error), "reason": error.reason})
        return Effect.FAILED


def require_operator(caller: Caller) -> None:
    if OPERATOR not in caller.roles:
        raise CallerRefused("responses are for operators; call as root or as the daemon's own user")


def _subject(found: _Found, trace_id: str) -> Subject:
    """Of one execution what policy was told of it; of a tenant nothing but whom it concerns."""
    if found.named and found.living and (suspension := found.living[0][1].suspension) is not None:
        return suspension.dossier.subject
    record = found.record
    if record is None:
        return Subject(_NO_PROFILE, SandboxFacts("", Isolation.PROCESS), trace_id=trace_id)
    profile = ProfileFacts(record.profile, "", ())
    sandbox = SandboxFacts(record.sandbox_id, Isolation.PROCESS)
    return Subject(profile, sandbox, execution_id=record.execution_id, trace_id=trace_id)


def _held(running: Running) -> bool:
    return running.suspension is not None and running.suspension.held


async def _freeze(running: Running) -> Effect:
    if running.suspension is None:
        raise Unenforceable("it is being launched; try again once it runs", reason="not_running")
    return Effect.FROZEN if await running.suspension.freeze() else Effect.UNCHANGED


async def _thaw(running: Running) -> Effect:
    if running.suspension is None:
        return Effect.UNCHANGED
    return Effect.THAWED if await running.suspension.thaw() else Effect.UNCHANGED


async def _kill(running: Running) -> Effect:
    running.end(EndReason.KILLED)
    return Effect.KILLED


async def _hold(running: Running) -> Effect:
    """One that is being launched is refused on its way. What does not stand still must not go on."""
    suspension = running.suspension
    if suspension is None:
        return Effect.UNCHANGED
    suspension.hold()
    try:
        await suspension.freeze()
    except (Unenforceable, RuntimeFailed) as error:
        log.error("what cannot be frozen is killed", extra={"error": str(error)})
        running.end(EndReason.KILLED)
        return Effect.KILLED
    return Effect.HELD


async def _release(running: Running) -> Effect:
    suspension = running.suspension
    if suspension is None or not suspension.held:
        return Effect.UNCHANGED
    effect = await _thaw(running)
    suspension.release()
    return effect


_OF_ONE: dict[Measure, Callable[[Running], Awaitable[Effect]]] = {
    Measure.FREEZE: _freeze,
    Measure.THAW: _thaw,
    Measure.KILL: _kill,
}
