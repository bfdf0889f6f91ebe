"""Warnings that a stranger can cause as often as he likes: at most one a second each, with how many were left out.

Called by `relay`.
"""

import logging
from collections.abc import Callable, Mapping

_SECONDS = 1.0


class Seldom:
    """`clock` is monotonic, in seconds."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._next: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def warning(self, message: str, extra: Mapping[str, object]) -> None:
        """`message` is one of a few constant strings."""
        now = self._clock()
        if now < self._next.get(message, now):
            self._suppressed[message] = self._suppressed.get(message, 0) + 1
            return
        self._next[message] = now + _SECONDS
        self._log.warning(message, extra={**extra, "suppressed": self._suppressed.pop(message, 0)})
