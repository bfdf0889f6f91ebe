"""Time for supervision: the system's monotonic clock, with the timers of an event loop.

A loop's own clock may count in milliseconds and stand still within a turn (uvloop's does both), and the wall time of a
short program is told in fractions of one. Made by `daemon`.
"""

import asyncio
import time
from collections.abc import Callable

_TICK_SECONDS = 0.001  # of a loop's clock: a timer must not fire before its time


class LoopClock:
    """Bound to one loop. Implements `supervise.Clock`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        # From the loop's own now, which is the same clock but may be behind.
        return self._loop.call_later(max(0.0, when - self._loop.time()) + _TICK_SECONDS, callback)
