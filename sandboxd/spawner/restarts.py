"""How soon a daemon that ended by itself is started again, and when that is given up.

One that crashes again and again would else be started as fast as it can crash, each time with all its callers cut off.
Pure; the clock comes in. Called by `service`.
"""

from collections.abc import Callable

EX_CONFIG = 78  # of sysexits.h: trying again would not mend it
MOST_SECONDS = 30.0
_FIRST_SECONDS = 0.1
_UNREADY_SECONDS = 0.5  # at the least, if it did not get as far as that
_STEADY_SECONDS = 60.0  # one that served so long crashed for a new reason
_MOST_STARTS_WITHOUT_READY = 5


class Restarts:
    """Told of each start, of readiness and of each end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready_at: float | None = None
        self._without_ready = 0
        self._in_a_row = 0

    def started(self) -> None:
        self._ready_at = None

    def ready(self) -> None:
        """The daemon serves; it may say so more than once."""
        if self._ready_at is None:
            self._ready_at = self._clock()
            self._without_ready = 0

    def pause_seconds(self, status: int) -> float | None:
        """Before the next start, now that it ended with that exit status; None: there shall be no next one."""
        if self._ready_at is None:
            self._without_ready += 1
            if status == EX_CONFIG or self._without_ready >= _MOST_STARTS_WITHOUT_READY:
                return None
        elif self._clock() - self._ready_at >= _STEADY_SECONDS:
            self._in_a_row = 0
        self._in_a_row += 1
        grown = _FIRST_SECONDS * 2.0 ** min(30, self._in_a_row - 2) if self._in_a_row > 1 else 0.0
        return min(MOST_SECONDS, grown if self._ready_at is not None else max(_UNREADY_SECONDS, grown))
