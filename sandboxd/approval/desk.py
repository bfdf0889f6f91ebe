"""Decides about approvals: what is asked anew, what is granted, whose vote counts, what is over. No I/O, no clock.

A pure state machine over the cases that are open: each method takes the time and answers, and nothing changes but by
`put` and `drop`. Used by `office`, which keeps what it says.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sandboxd.approval.case import (
    MAX_COMMENT_CHARS,
    Asked,
    Case,
    State,
    Vote,
    expires_at,
    may_approve,
    may_see,
    state,
)
from sandboxd.errors import InvalidRequest, NotFound, PolicyDenied
from sandboxd.model import Caller

MAX_CASES = 1024
RATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fatigue:
    """How much one requester may lay before people: at once, and in each minute."""

    max_pending: int = 20
    max_per_minute: int = 10


class Desk:
    """The open cases by id and by what they are bound to: one of each."""

    def __init__(self, fatigue: Fatigue, cases: Iterable[Case] = ()) -> None:
        self._fatigue = fatigue
        self._cases: dict[str, Case] = {}
        self._by_binding: dict[str, str] = {}
        self._asked_at: dict[tuple[str, str], deque[float]] = {}
        for case in cases:
            self.put(case)

    def __iter__(self) -> Iterator[Case]:
        """Oldest first."""
        return iter(tuple(self._cases.values()))

    def put(self, case: Case) -> None:
        """A new case, or the same one with another vote."""
        self._cases[case.approval_id] = case
        self._by_binding[case.asked.binding] = case.approval_id

    def drop(self, case: Case) -> None:
        del self._cases[case.approval_id]
        if self._by_binding.get(case.asked.binding) == case.approval_id:
            del self._by_binding[case.asked.binding]

    def about(self, binding: str) -> Case | None:
        """The case of exactly this question, whatever its state."""
        found = self._by_binding.get(binding)
        return None if found is None else self._cases[found]

    def over(self, now: float) -> tuple[Case, ...]:
        """Those that wait for nothing any more: nobody may vote on them or use them."""
        return tuple(case for case in self._cases.values() if now >= expires_at(case))

    def next_end(self) -> float | None:
        """When the next one will be over."""
        return min(map(expires_at, self._cases.values()), default=None)

    def flooded(self, asked: Asked, now: float) -> str:
        """Why nothing more is laid before people for this requester, empty if it may be; it then counts as asked."""
        who = (asked.tenant, asked.requester)
        pending = sum(
            (case.asked.tenant, case.asked.requester) == who and state(case, now) is State.PENDING
            for case in self._cases.values()
        )
        if pending >= self._fatigue.max_pending:
            return f"{asked.requester!r} has {pending} approvals pending, and no more may be"
        if len(self._cases) >= MAX_CASES:
            return f"this node keeps {MAX_CASES} approvals, and no more may be"
        lately = self._lately(who, now)
        if len(lately) >= self._fatigue.max_per_minute:
            return f"{asked.requester!r} asked for {len(lately)} approvals within a minute, and no more may be"
        lately.append(now)
        return ""

    def seen(self, approval_id: str, caller: Caller) -> Case:
        """`NotFound` alike for one that is unknown and one that the caller may not see."""
        case = self._cases.get(approval_id)
        if case is None or not may_see(case, caller):
            raise NotFound(f"no approval {approval_id[:64]!r}; list shows the ones that are open")
        return case

    def voted(self, approval_id: str, caller: Caller, *, approve: bool, comment: str, now: float) -> Case:
        """The case with that vote, not yet put. An error of `errors` if the vote does not count."""
        case = self.seen(approval_id, caller)
        if caller.subject == case.asked.requester:
            raise PolicyDenied("whoever asks for something cannot decide about it", reason="own_request")
        if not may_approve(case, caller):
            raise PolicyDenied(f"{caller.subject!r} is no approver of this", reason="not_an_approver")
        if any(vote.approver == caller.subject for vote in case.votes):
            raise InvalidRequest(f"{caller.subject!r} has voted already; one vote counts", reason="already_voted")
        match state(case, now):
            case State.PENDING:
                vote = Vote(caller.subject, approve, comment[:MAX_COMMENT_CHARS], now)
                return replace(case, votes=(*case.votes, vote))
            case State.EXPIRED:
                raise InvalidRequest("the approval has expired; it must be asked for anew", reason="approval_expired")
            case other:
                raise InvalidRequest(f"the approval is {other} already", reason="already_decided")

    def _lately(self, who: tuple[str, str], now: float) -> deque[float]:
        """When that requester asked within the last minute; who did not is forgotten."""
        for known, times in tuple(self._asked_at.items()):
            while times and times[0] <= now - RATE_SECONDS:
                times.popleft()
            if not times:
                del self._asked_at[known]
        return self._asked_at.setdefault(who, deque())
