"""Asks policy about one action and fails closed: whatever is wrong with the engine or its answer is a deny.

Never raises for policy trouble, never records, never loosens: an obligation that could is a malformed answer. What a
policy marked to be taken again (`ttl_seconds`) is, for equal questions, while its engine could answer. What an allowed
action makes a sandbox have seen is so before the caller learns that it is allowed. Called before every mediated action.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import assert_never

from sandboxd.action import (
    Action,
    ApprovalDecide,
    ExecutionStart,
    ProfileUse,
    SandboxDelete,
    SandboxPause,
    SandboxResume,
    SandboxSnapshot,
)
from sandboxd.approval import answer, asking
from sandboxd.approval.binding import Content, nothing
from sandboxd.approval.office import Approvals
from sandboxd.errors import PolicyDenied, Unenforceable
from sandboxd.model import OPERATOR, Approval, Caller, Decision, Isolation, Obligations, Reason, Verdict
from sandboxd.policy.base import LIMIT_NAMES, PolicyEngine, refusal
from sandboxd.policy.document import PolicyInput, ProfileFacts, Question, SandboxFacts
from sandboxd.policy.history import Counters
from sandboxd.policy.memory import Memory
from sandboxd.policy.seen import Sightings, raised_by
from sandboxd.trace_context import Headers

# Over the engine's own deadline: the gate's only catches an engine that does not keep it.
MARGIN_SECONDS = 4.0

# Returns at once and never raises: the question, its action's type, who asks, the sandbox's id, and the decision.
Observer = Callable[[PolicyInput, str, Caller, str, Decision], None]
_NONE = Obligations()
QUARANTINED = "quarantined"
_RESPONSES = (SandboxPause, SandboxResume, SandboxDelete, SandboxSnapshot)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the action is about, besides itself. `content` is asked only where people are to decide."""

    profile: ProfileFacts
    sandbox: SandboxFacts
    content: Callable[[], Content] = nothing
    execution_id: str = ""
    trace_id: str = ""
    trace: Headers = ()  # for a policy server


class Gate:
    """`replace` swaps the engine atomically: a decision under way ends on the one it began with."""

    def __init__(
        self,
        engine: PolicyEngine,
        *,
        node: str = os.uname().nodename,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        deadline_seconds: float = 1.0 + MARGIN_SECONDS,
        approvals: Approvals | None = None,
        took: Callable[[float], None] | None = None,
        barred: Callable[[Caller], str] = lambda _: "",
    ) -> None:
        """`took` hears for each decision that was asked for how many seconds that took.

        `barred` says why that caller may do nothing at all for now; empty for everybody else.
        """
        self._engine = engine
        self._node = node
        self._clock = clock
        self._monotonic = monotonic
        self._deadline_seconds = deadline_seconds
        self._memory = Memory(monotonic)
        self._counters = Counters(monotonic)
        self.sightings = Sightings()
        self._approvals = approvals
        self._observer: Observer | None = None
        self._took = took
        self._barred = barred

    @property
    def engine(self) -> PolicyEngine:
        return self._engine

    @property
    def approvals(self) -> Approvals | None:
        """Who is asked where policy leaves an action to people; None: nobody."""
        return self._approvals

    def replace(self, engine: PolicyEngine) -> PolicyEngine:
        """From now on `engine` decides; the former one, for the caller to close."""
        former, self._engine = self._engine, engine
        self.forget()
        return former

    def forget(self) -> None:
        """No decision that was taken by now is taken again."""
        self._memory = Memory(self._monotonic)

    def observe(self, observer: Observer | None) -> None:
        """From now on `observer` is given each decision that the policy was asked for, and none that was remembered."""
        self._observer = observer

    async def judge(self, engine: PolicyEngine, document: PolicyInput) -> Decision:
        """What that engine decides, seen to be a decision. Nothing comes of it by itself."""
        return _acceptable(await self._ask(engine, document), engine.revision)

    async def decide(self, action: Action, caller: Caller, subject: Subject) -> Decision:
        """The decision, its `input_json` filled in. Cancellation is the only thing that is raised."""
        if (why := self._barred(caller)) and not _is_response(action, caller):
            return replace(refusal(QUARANTINED, why, self._engine.revision), message_for_agent=why)
        decision = await self._standing(action, caller, subject)
        if decision.verdict is Verdict.DENY:
            if not decision.approval_id:
                self._counters.add(caller.tenant, denials=1)
        elif isinstance(action, ExecutionStart):
            self._counters.add(caller.tenant, executions=1)
        return decision

    def require_free(self, caller: Caller) -> None:
        """`PolicyDenied` for one who was quarantined after it was decided what he may do."""
        if why := self._barred(caller):
            raise PolicyDenied(why, reason=QUARANTINED, message_for_agent=why)

    def left(self, tenant: str, bytes_out: int) -> None:
        """So much output of that tenant's left a sandbox: rules may look at it."""
        self._counters.add(tenant, bytes_out=bytes_out)

    async def _standing(self, action: Action, caller: Caller, subject: Subject) -> Decision:
        """One that was taken on what the sandbox has seen by now, and not on less: then it is asked anew.

        So of two actions at once neither passes on what the other has made untrue. Each flag rises but once.
        """
        sandbox_id = subject.sandbox.id
        while True:
            sandbox, seen = subject.sandbox, self.sightings.of(sandbox_id)
            if seen is not None and seen != sandbox.seen:
                sandbox = replace(sandbox, seen=seen)
            decision = await self._decided(action, caller, subject, sandbox)
            if decision.verdict is Verdict.DENY:
                return decision
            if self.sightings.of(sandbox_id) is seen:
                break
        if not self.sightings.rise(sandbox_id, raised_by(action)):
            gone = refusal(
                "sandbox_unknown", "no such sandbox is alive, so nothing may go in or out", decision.revision
            )
            return replace(gone, input_json=decision.input_json)
        return decision

    async def _decided(self, action: Action, caller: Caller, subject: Subject, sandbox: SandboxFacts) -> Decision:
        engine, memory = self._engine, self._memory
        try:
            question = Question(action, caller, subject.profile, sandbox, self._node)
            # A remote policy changes without a reload: what an earlier revision of it said is not asked for again.
            known = memory.recall(question.key) if _repeatable(engine) else None
            if known is not None and known.revision != engine.revision:
                known = None
            if known is not None and on_record_before(action, known):
                return known
            document = self._now(question, caller, subject.trace)
        except ValueError as error:
            return refusal("policy_malformed", f"the action cannot be put to policy: {error}", engine.revision)
        if known is not None:
            return replace(known, input_json=document.document)
        asked_at = self._monotonic()
        decision = _acceptable(await self._ask(engine, document), engine.revision)
        if self._took is not None:
            self._took(self._monotonic() - asked_at)
        if self._observer is not None:
            self._observer(document, action.type, caller, sandbox.id, decision)
        if asking.wanted(decision):
            decision = await self._approved(decision, action, caller, subject, document)
            return replace(decision, input_json=document.document)
        if _repeatable(engine):
            memory.keep(document.key, decision, asked_at)
        return replace(decision, input_json=document.document)

    async def _approved(
        self, decision: Decision, action: Action, caller: Caller, subject: Subject, document: PolicyInput
    ) -> Decision:
        """The decision without its demand for an approval if that was given, else a deny."""
        # Who decides about an approval needs none himself, or no end would come to it.
        if self._approvals is None or isinstance(action, ApprovalDecide):
            return answer.unavailable(decision, "policy asks for an approval, and there is nobody to give one")
        return await self._approvals.settle(decision, asking.asked(decision, action, caller, subject, document))

    def _now(self, question: Question, caller: Caller, trace: Headers) -> PolicyInput:
        seconds = self._clock()
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
        return question.at(now, self._counters.of(caller.tenant), trace)

    async def _ask(self, engine: PolicyEngine, document: PolicyInput) -> object:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await engine.decide(document)
        except TimeoutError:
            return refusal("policy_timeout", "the policy engine did not answer in time", engine.revision)
        except Exception as error:  # noqa: BLE001  an engine is foreign code, and no failure of it may let an action through
            return refusal("policy_unavailable", f"the policy engine failed: {type(error).__name__}", engine.revision)


def _is_response(action: Action, caller: Caller) -> bool:
    """What operators answer an incident with: they lift a quarantine, too, be it their own."""
    return isinstance(action, _RESPONSES) and OPERATOR in caller.roles


def on_record_before(action: Action, decision: Decision) -> bool:
    """Whether the record of when it was taken says all there is to say: it needs no document and no event of its own.

    So it is with a remembered and plain allow of a profile, which is asked about as often as programs run.
    """
    return (
        isinstance(action, ProfileUse)
        and decision.remembered
        and decision.verdict is Verdict.ALLOW
        and not decision.reasons
        and decision.obligations == _NONE
    )


def require_allowed(decision: Decision, redactable: Container[str] = ()) -> None:
    """Raises `PolicyDenied` for every verdict but those that let the action go ahead.

    `redactable` names what can be taken out of what comes of this action; of most nothing comes.
    """
    match decision.verdict:
        case Verdict.ALLOW | Verdict.WARN | Verdict.TRANSFORM:
            if decision.obligations.redact:
                _require_redactable(decision.obligations.redact, redactable)
        case Verdict.DENY | Verdict.ESCALATE:
            reasons = "; ".join(f"{reason.code}: {reason.message}" for reason in decision.reasons)
            raise PolicyDenied(
                f"policy does not allow this: {reasons or 'no reason given'}",
                reason=decision.reasons[0].code if decision.reasons else "",
                message_for_agent=decision.message_for_agent or "Policy does not allow this.",
                approval_id=decision.approval_id,
            )
        case _:
            assert_never(decision.verdict)


def _require_redactable(names: tuple[str, ...], redactable: Container[str]) -> None:
    if unknown := [name for name in names if name not in redactable]:
        raise Unenforceable(
            f"policy demands redaction of {unknown!r:.200}, and no such pattern is known for this action; "
            "for a program that starts, name one that is shipped or add it to 'redaction.patterns'",
            reason="obligation_unsupported",
        )


def _repeatable(engine: PolicyEngine) -> bool:
    try:
        return engine.repeatable is True
    except Exception:  # noqa: BLE001  foreign code, and one that was written before engines told this
        return False


def _acceptable(decision: object, revision: str) -> Decision:
    if not isinstance(decision, Decision) or not isinstance(decision.verdict, Verdict):
        return refusal("policy_malformed", "the policy engine's answer is not a decision", revision)
    if not decision.revision:
        return refusal("policy_malformed", "the policy engine's answer names no revision", "unknown")
    if not _well_typed(decision):
        return refusal("policy_malformed", "the decision's reasons or ttl_seconds are ill-typed", decision.revision)
    if not _only_tightens(decision.obligations):
        return refusal("policy_malformed", "the decision's obligations are ill-typed", decision.revision)
    return decision


def _well_typed(decision: Decision) -> bool:
    return (
        type(decision.ttl_seconds) in (int, float)
        and 0 <= decision.ttl_seconds < math.inf
        and isinstance(decision.message_for_agent, str)
        and isinstance(decision.reasons, tuple)
        and all(
            isinstance(reason, Reason) and isinstance(reason.code, str) and isinstance(reason.message, str)
            for reason in decision.reasons
        )
    )


def _only_tightens(obligations: object) -> bool:
    return (
        isinstance(obligations, Obligations)
        and all(
            name in LIMIT_NAMES and type(number) in (int, float) and 0 < number < math.inf
            for name, number in obligations.limits
        )
        and (obligations.runtime_floor is None or isinstance(obligations.runtime_floor, Isolation))
        and isinstance(obligations.redact, tuple)
        and all(isinstance(name, str) for name in obligations.redact)
        and (obligations.approval is None or _well_ruled(obligations.approval))
    )


def _well_ruled(approval: object) -> bool:
    return (
        isinstance(approval, Approval)
        and type(approval.ttl_seconds) in (int, float)
        and 0 < approval.ttl_seconds < math.inf
        and isinstance(approval.approvers, tuple)
        and all(isinstance(name, str) for name in approval.approvers)
        and type(approval.quorum) is int
        and approval.quorum >= 1
    )
