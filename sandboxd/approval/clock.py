"""Time for approvals: it is the wall's, since it outlives the daemon, and it never goes back.

What a clock that is set back would lengthen is measured by a steady one meanwhile. Made by `daemon`.
"""

import time
from collections.abc import Callable


def steady() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ForwardClock:
    """Seconds since the epoch, at least `not_before`."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float], not_before: float = 0.0) -> None:
        self._wall = wall
        self._steady = steady
        self._steadily = steady()
        self._latest = max(wall(), not_before)

    def time(self) -> float:
        steadily = self._steady()
        self._latest = max(self._latest + max(0.0, steadily - self._steadily), self._wall())
        self._steadily = steadily
        return self._latest
