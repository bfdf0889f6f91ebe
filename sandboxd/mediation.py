"""What an execution does while it runs and its profile wants asked about: each exec is decided, and recorded first.

Fails closed: what cannot be decided, carried out or recorded is refused. Never touches the sandbox, which asks. Made by
`execution`, called by a runtime's sandbox.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from sandboxd.action import ProcessExec
from sandboxd.approval.answer import APPROVAL_REQUIRED
from sandboxd.errors import AuditUnavailable
from sandboxd.gate import Gate, Subject
from sandboxd.model import Caller, Decision, Obligations, Outcome, Reason, RefusedCalls, Verdict, Violation
from sandboxd.profile.seccomp import known_numbers
from sandboxd.redaction.redaction import Redaction
from sandboxd.span import Span

MOST_VIOLATIONS = 16
MOST_MESSAGES = 3
EACH_ON_RECORD = 64  # of those refused for one reason; then the 128th, the 256th and so on, and the last
OTHER = "other"
MOST_WAIT_SECONDS = 4.0  # for people; init waits ten for all of it, and meanwhile the sandbox's other execs wait too
_SHOWN_CHARS = 200

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Refused:
    action: ProcessExec
    decision: Decision
    engine: str
    count: int = 1


class ExecMediator:
    """Implements `runtime.base.Mediator`. `subject` is asked for each question: a sandbox grows older."""

    def __init__(
        self,
        gate: Gate,
        span: Span,
        caller: Caller,
        subject: Callable[[], Subject],
        redaction: Redaction | None = None,
    ) -> None:
        self._gate = gate
        self._redaction = redaction
        self._span = span
        self._caller = caller
        self._subject = subject
        self._denied: dict[str, tuple[str, int]] = {}  # reason code → first image, how often
        self._tried: Counter[str] = Counter()  # by reason code, as the next
        self._owed: dict[str, _Refused] = {}  # the last that is not on record, with how many it stands for
        self._messages: dict[str, None] = {}

    async def may_exec(self, action: ProcessExec) -> bool:
        engine = self._gate.engine.name
        decision = _only_yes_or_no(await self._decided(action))
        allowed = decision.verdict in (Verdict.ALLOW, Verdict.WARN)
        if not allowed:
            return await self._refuse(_Refused(action, decision, engine))
        try:
            await self._span.exec_decided(action, decision, engine, "")
        except AuditUnavailable as error:
            log.error("an exec is not on record, so it is refused", extra={"error": str(error)})
            return False
        return True

    async def settled(self) -> None:
        """What was only counted is on record, or logged as not."""
        for code, owed in tuple(self._owed.items()):
            await self._tell(code, owed)

    async def refused(self, calls: RefusedCalls) -> None:
        try:
            await self._span.syscalls_denied(known_numbers().get(calls.number, ""), calls)
        except AuditUnavailable as error:  # they were refused all the same, and the next action is
            log.error("a refused system call is not on record", extra={"error": str(error)})

    def amended(self, outcome: Outcome) -> Outcome:
        """With what was denied on the way to this end."""
        if not self._denied:
            return outcome
        violations = tuple(
            Violation("policy", code, f"{image!r:.{_SHOWN_CHARS}} was not run; {count} in all were refused for this")
            for code, (image, count) in self._denied.items()
        )
        messages = tuple(message for message in (outcome.message_for_agent, *self._messages) if message)
        return replace(
            outcome, violations=outcome.violations + violations, message_for_agent=" ".join(dict.fromkeys(messages))
        )

    async def _decided(self, action: ProcessExec) -> Decision:
        """What people are to decide waits a little for them; after that the caller is told of the approval's id."""
        decision = await self._gate.decide(action, self._caller, self._subject())
        approvals = self._gate.approvals
        if approvals is None or APPROVAL_REQUIRED not in (reason.code for reason in decision.reasons[:1]):
            return decision
        if not await approvals.granted(decision.approval_id, min(approvals.wait_seconds, MOST_WAIT_SECONDS)):
            return decision
        return await self._gate.decide(action, self._caller, self._subject())

    async def _refuse(self, refused: "_Refused") -> bool:
        """Always no. Of a program that tries again and again not each attempt is on record: nobody is to fill that."""
        code = refused.decision.reasons[0].code if refused.decision.reasons else "policy_denied"
        self._remember(code, refused.action, refused.decision)
        if code not in self._tried and len(self._tried) >= MOST_VIOLATIONS:
            code = OTHER
        self._tried[code] += 1
        refused.count = 1 + (self._owed[code].count if code in self._owed else 0)
        self._owed[code] = refused
        if self._tried[code] <= EACH_ON_RECORD or self._tried[code].bit_count() == 1:
            await self._tell(code, refused)
        return False

    async def _tell(self, code: str, refused: "_Refused") -> None:
        del self._owed[code]
        try:
            await self._span.exec_decided(refused.action, refused.decision, refused.engine, "policy", refused.count)
        except AuditUnavailable as error:
            refused.count += self._owed[code].count if code in self._owed else 0
            self._owed[code] = refused
            log.error("a refused exec is not on record", extra={"error": str(error), "count": refused.count})

    def _remember(self, code: str, action: ProcessExec, decision: Decision) -> None:
        named = action.image if self._redaction is None else self._redaction.text(action.image)
        image, count = self._denied.get(code, (named, 0))
        if count or len(self._denied) < MOST_VIOLATIONS:
            self._denied[code] = (image, count + 1)
        if len(self._messages) < MOST_MESSAGES:
            self._messages[decision.message_for_agent or "Policy does not allow a program that it tried to run."] = None


def _only_yes_or_no(decision: Decision) -> Decision:
    """A sandbox that runs takes no tighter limits and no other runtime, so with such an obligation the answer is no."""
    demands = replace(decision.obligations, approval=None) != Obligations()
    if decision.verdict is Verdict.DENY or not (demands or decision.verdict is Verdict.TRANSFORM):
        return decision
    reason = Reason("obligation_unsupported", "an exec in a running sandbox can only be allowed or denied")
    return replace(decision, verdict=Verdict.DENY, reasons=(reason, *decision.reasons))
