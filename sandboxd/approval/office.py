"""Approvals as the rest of the daemon sees them: `settle` a decision that needs one, vote, look, watch.

Joins what decides (`desk`), what keeps (`store`) and what records. On record before it counts; a grant is off the disk
before its action runs, so that none is used twice, whatever dies. What cannot be kept or recorded denies. One at a
time: all changes are made under one lock. Called by `gate`, `voting`, `execution` and `rpc`; made by `daemon`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from sandboxd.approval import answer
from sandboxd.approval.case import Asked, Case, State, Update, expires_at, may_see, state
from sandboxd.approval.desk import Desk
from sandboxd.approval.watching import Watchers
from sandboxd.errors import ApprovalUnavailable, AuditUnavailable, Draining
from sandboxd.event import (
    ApprovalConsumed,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    ApprovalVoted,
    Event,
)
from sandboxd.model import Caller, Decision

_SWEEP_SECONDS = 60.0  # at most between two looks for what is over; a clock may have been set

_Voted = ApprovalVoted | ApprovalGranted | ApprovalDenied

log = logging.getLogger(__name__)


class Keeps(Protocol):
    """What the office needs of `store.Store`."""

    def save(self, case: Case) -> None: ...
    def remove(self, case: Case) -> None: ...


class Record(Protocol):
    """What the office needs of `audit.recorder.Recorder`."""

    async def record(self, event: Event) -> int: ...


class Approvals:
    """`tell` hears of each case that is asked for or decided, once that is so; it must not block."""

    def __init__(
        self,
        desk: Desk,
        store: Keeps,
        record: Record,
        clock: Callable[[], float],
        ids: Callable[[], str],
        tell: Callable[[Update], None] = lambda _: None,
        wait_seconds: float = 0.0,
    ) -> None:
        self.wait_seconds = wait_seconds
        self._desk = desk
        self._store = store
        self._record = record
        self._clock = clock
        self._ids = ids
        self._tell = tell
        self._lock = asyncio.Lock()
        self._watchers = Watchers()
        self._news = asyncio.Event()

    # --- the caller who asks

    async def settle(self, decision: Decision, asked: Asked) -> Decision:
        """`decision` without its demand if a grant was used up for it, else a deny that names what it waits for."""
        try:
            async with self._lock:
                return await self._settled(decision, asked)
        except (ApprovalUnavailable, AuditUnavailable) as error:
            return answer.unavailable(decision, error.message)

    async def _settled(self, decision: Decision, asked: Asked) -> Decision:
        now = self._clock()
        case = self._desk.about(asked.binding)
        if case is not None and now >= expires_at(case):
            await self._ended(case)
            case = None
        if case is None:
            if why := self._desk.flooded(asked, now):
                return answer.flooded(decision, why)
            case = await self._opened(Case(self._ids(), asked, now))
            return answer.pending(decision, case)
        match state(case, now):
            case State.GRANTED:
                await self._consumed(case, asked)
                return answer.granted(decision, case)
            case State.DENIED:
                return answer.denied(decision, case)
            case _:
                return answer.pending(decision, case)

    async def granted(self, approval_id: str, seconds: float) -> bool:
        """Waits up to so long until a case is decided or over; whether it was granted."""
        with self._watchers.watching(lambda update: update.case.approval_id == approval_id) as news:
            now = self._clock()
            found = next((state(case, now) for case in self._desk if case.approval_id == approval_id), State.EXPIRED)
            try:
                async with asyncio.timeout(seconds):
                    while found is State.PENDING:
                        found = (await news.get()).state
            except (TimeoutError, Draining):
                return False
        return found is State.GRANTED

    # --- those who decide

    @property
    def pending(self) -> int:
        """How many wait for people."""
        now = self._clock()
        return sum(state(case, now) is State.PENDING for case in self._desk)

    def cases(self, caller: Caller) -> tuple[Update, ...]:
        """What the caller may see and is not over, oldest first."""
        now = self._clock()
        found = (Update(case, state(case, now)) for case in self._desk if may_see(case, caller))
        return tuple(update for update in found if update.state is not State.EXPIRED)

    def case(self, approval_id: str, caller: Caller) -> Case:
        """`NotFound` alike for an unknown one and one that is none of the caller's business."""
        return self._desk.seen(approval_id, caller)

    async def vote(self, approval_id: str, caller: Caller, *, approve: bool, comment: str) -> Update:
        """Counts on return. The daemon's own rules hold whatever policy said: see `desk.voted`."""
        async with self._lock:
            now = self._clock()
            case = self._desk.voted(approval_id, caller, approve=approve, comment=comment, now=now)
            update = Update(case, state(case, now))
            await self._record.record(_voted(update, caller))
            self._save(case)
            self._desk.put(case)
            self._published(update)
            return update

    async def watch(self, caller: Caller) -> AsyncGenerator[Update, None]:
        """What is pending, then whatever changes. `Overloaded` if the reader falls behind, `Draining` at the end."""
        with self._watchers.watching(lambda update: may_see(update.case, caller)) as news:
            for update in self.cases(caller):
                if update.state is State.PENDING:
                    yield update
            while True:
                yield await news.get()

    # --- the daemon

    async def run(self) -> None:
        """Until cancelled: end what is over, when it is."""
        while True:
            self._news.clear()
            end = self._desk.next_end() if await self.sweep() else None
            seconds = _SWEEP_SECONDS if end is None else min(max(end - self._clock(), 0.01), _SWEEP_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()

    async def sweep(self) -> bool:
        """What is over is taken off the disk and said to have expired; False if that did not come off."""
        async with self._lock:
            for case in self._desk.over(self._clock()):
                try:
                    await self._ended(case)
                except (ApprovalUnavailable, AuditUnavailable) as error:
                    log.warning("an approval that is over is not cleared away", extra={"error": error.message})
                    return False
        return True

    def close(self) -> None:
        """Ends every watch; nothing can be waited for any more."""
        self._watchers.close()

    # --- changes, each under the lock

    async def _opened(self, case: Case) -> Case:
        rule = case.asked.rule
        await self._record.record(
            ApprovalRequested(
                *_ids(case.asked, case.asked.requester),
                approval_id=case.approval_id,
                action=case.asked.action_type,
                binding_sha256=case.asked.binding,
                shown_sha256=case.asked.shown_sha256,
                profile=case.asked.profile.name,
                reasons=case.asked.reasons,
                approvers=rule.approvers,
                quorum=rule.quorum,
                ttl_seconds=rule.ttl_seconds,
            )
        )
        self._save(case)
        self._desk.put(case)
        self._published(Update(case, State.PENDING))
        return case

    async def _consumed(self, case: Case, asked: Asked) -> None:
        """By the execution that asks now, which need not be the one that asked first."""
        self._remove(case)
        self._desk.drop(case)
        await self._record.record(
            ApprovalConsumed(
                *_ids(asked, asked.requester),
                approval_id=case.approval_id,
                action=asked.action_type,
                binding_sha256=asked.binding,
                approvers=tuple(vote.approver for vote in case.votes),
            )
        )
        self._published(Update(case, State.CONSUMED))

    async def _ended(self, case: Case) -> None:
        granted = state(case, case.requested_at) is State.GRANTED
        denied = state(case, case.requested_at) is State.DENIED
        self._remove(case)
        self._desk.drop(case)
        if denied:
            return  # it was said to be; now it is forgotten
        await self._record.record(
            ApprovalExpired(
                *_ids(case.asked, case.asked.requester),
                approval_id=case.approval_id,
                action=case.asked.action_type,
                binding_sha256=case.asked.binding,
                granted=granted,
            )
        )
        self._published(Update(case, State.EXPIRED))

    def _save(self, case: Case) -> None:
        try:
            self._store.save(case)
        except OSError as error:
            raise ApprovalUnavailable(f"the approval cannot be kept: {error.strerror}") from error

    def _remove(self, case: Case) -> None:
        try:
            self._store.remove(case)
        except OSError as error:
            raise ApprovalUnavailable(f"the approval cannot be taken off the disk: {error.strerror}") from error

    def _published(self, update: Update) -> None:
        self._news.set()
        self._watchers.tell(update)
        self._tell(update)


def _voted(update: Update, caller: Caller) -> _Voted:
    case = update.case
    kinds: dict[State, type[_Voted]] = {State.GRANTED: ApprovalGranted, State.DENIED: ApprovalDenied}
    return kinds.get(update.state, ApprovalVoted)(
        *_ids(case.asked, caller.subject),
        approval_id=case.approval_id,
        action=case.asked.action_type,
        binding_sha256=case.asked.binding,
        requester=case.asked.requester,
        comment=case.votes[-1].comment,
        votes=len(case.votes),
        quorum=case.asked.rule.quorum,
    )


def _ids(asked: Asked, subject: str) -> tuple[str, str, str, str, str, str]:
    """The fields common to all events, in their order; `subject` is who acts."""
    return (asked.tenant, subject, asked.execution_id, asked.sandbox_id, asked.revision, asked.trace_id)
