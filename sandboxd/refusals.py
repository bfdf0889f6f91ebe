"""How much of the record one caller's refused requests may take: so many a minute one by one, the others counted.

Never loses one: what is counted is put on record within seconds, as the last of its kind with how many it stands for.
Nothing that runs is ever left out; `span` holds back what leads up to a refusal. Used by `execution`, run by `daemon`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from sandboxd.errors import AuditUnavailable
from sandboxd.event import ExecutionRefused
from sandboxd.model import Caller

SUMMARY_SECONDS = 10.0
MAX_CALLERS = 4096
MAX_REASONS = 32  # of each caller; policies name some themselves
OTHER = "other"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Share:
    """Refusals that one caller may still have on record as of `at`, and the last one of each reason that it had not."""

    tokens: float
    at: float
    counted: dict[str, ExecutionRefused] = field(default_factory=dict)


class Refusals:
    """`per_minute` of each caller, refilled continuously. `clock` is monotonic seconds."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._shares: OrderedDict[tuple[str, str], _Share] = OrderedDict()

    def are_counted(self, caller: Caller) -> bool:
        """Whether a refusal of this caller's is not put on record by itself from now on."""
        share = self._shares.get((caller.tenant, caller.subject))
        return share is not None and self._refilled(share) < 1

    def recorded(self, caller: Caller) -> None:
        """One of this caller's is on record by itself."""
        share = self._of(caller.tenant, caller.subject)
        share.tokens = max(0.0, self._refilled(share) - 1)

    def count(self, refused: ExecutionRefused) -> None:
        counted = self._of(refused.tenant, refused.subject).counted
        reason = refused.reason if refused.reason in counted or len(counted) < MAX_REASONS else OTHER
        before = counted[reason].count if reason in counted else 0
        counted[reason] = replace(refused, reason=reason, count=before + 1, suppressed=before)

    async def run(self, record: Callable[[ExecutionRefused], Awaitable[object]]) -> None:
        """Puts what was counted on record now and then, and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(SUMMARY_SECONDS)
                await self._put_on_record(record)
        finally:
            await self._put_on_record(record)

    async def _put_on_record(self, record: Callable[[ExecutionRefused], Awaitable[object]]) -> None:
        for share in tuple(self._shares.values()):
            for reason, refused in tuple(share.counted.items()):
                del share.counted[reason]
                try:
                    await record(refused)
                except AuditUnavailable as error:
                    later = share.counted.get(reason)
                    both = refused.count + (0 if later is None else later.count)
                    share.counted[reason] = replace(later or refused, count=both, suppressed=both - 1)
                    log.error("refusals are not on record yet", extra={"error": str(error)})
                    return

    def _of(self, tenant: str, subject: str) -> _Share:
        share = self._shares.get((tenant, subject))
        if share is None:
            share = self._shares[tenant, subject] = _Share(float(self._per_minute), self._clock())
            self._forget_one()
        self._shares.move_to_end((tenant, subject))
        return share

    def _forget_one(self) -> None:
        """Of too many the one that was refused longest ago, unless it has something to tell."""
        if len(self._shares) > MAX_CALLERS:
            oldest = next((who for who, share in self._shares.items() if not share.counted), None)
            if oldest is not None:
                del self._shares[oldest]

    def _refilled(self, share: _Share) -> float:
        now = self._clock()
        share.tokens = min(float(self._per_minute), share.tokens + (now - share.at) * self._per_minute / 60)
        share.at = now
        return share.tokens
