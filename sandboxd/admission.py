"""May this execution take a place on this node now: drain, slots, and a rate for each tenant.

Never waits and never queues: a refusal costs microseconds and says when to try again. The clock comes in as an
argument. Called by `execution` as the second step of the line, and by `daemon` when the node goes down.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sandboxd.errors import Draining, Overloaded

TENANTS_REMEMBERED = 4096
SLOT_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Bucket:
    """Tokens of one tenant as of `at`; it refills continuously up to the burst."""

    tokens: float
    at: float


class Admission:
    """Slots are held while a sandbox may exist. `max_per_minute` 0 means no rate; its burst is one minute's worth."""

    def __init__(self, max_concurrent: int, max_per_minute: int, clock: Callable[[], float]) -> None:
        self._max_concurrent = max_concurrent
        self._max_per_minute = max_per_minute
        self._clock = clock
        self._running = 0
        self._draining = False
        self._buckets: dict[str, _Bucket] = {}

    @property
    def running(self) -> int:
        return self._running

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Refuse everything from now on; there is no way back."""
        self._draining = True

    @contextmanager
    def slot(self, tenant: str) -> Iterator[None]:
        """A place for one execution, given back at the end of the block; `Draining` or `Overloaded` if none is left."""
        if self._draining:
            raise Draining(
                "the node is draining and takes no new executions; retry on another node",
                message_for_agent="The node is shutting down. Try again shortly.",
            )
        if self._running >= self._max_concurrent:
            raise _overloaded(
                f"all {self._max_concurrent} execution slots of this node are taken", "slots", SLOT_RETRY_SECONDS
            )
        self._take_token(tenant)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _take_token(self, tenant: str) -> None:
        if not self._max_per_minute:
            return
        now = self._clock()
        per_second = self._max_per_minute / 60
        bucket = self._buckets.pop(tenant, None) or _Bucket(self._max_per_minute, now)
        bucket.tokens = min(self._max_per_minute, bucket.tokens + (now - bucket.at) * per_second)
        bucket.at = now
        self._buckets[tenant] = bucket  # put back at the end: the dict is ordered by last use
        if len(self._buckets) > TENANTS_REMEMBERED:
            del self._buckets[next(iter(self._buckets))]
        if bucket.tokens < 1:
            raise _overloaded(
                f"tenant {tenant!r} is over {self._max_per_minute} executions a minute",
                "rate",
                (1 - bucket.tokens) / per_second,
            )
        bucket.tokens -= 1


def _overloaded(message: str, reason: str, retry_seconds: float) -> Overloaded:
    return Overloaded(
        f"{message}; retry in {retry_seconds:.1f} seconds",
        reason=reason,
        retry_after_seconds=retry_seconds,
        message_for_agent=f"Too many executions right now. Try again in {max(1, round(retry_seconds))} seconds.",
    )
