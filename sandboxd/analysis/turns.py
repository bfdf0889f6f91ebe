"""Whose source is read next: one at a time, and round and round among those who wait.

So that whoever has much read, or what reads slowly, makes others wait for one source of his and not for all. Used by
`analyser`.
"""

import asyncio
from collections import OrderedDict, deque


class Turns:
    """Bound to the event loop that waits first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # nobody's line is empty
        self._holder: str | None = None

    @property
    def taken(self) -> bool:
        return self._holder is not None

    async def acquire(self, who: str) -> None:
        """Until it is the caller's turn, which then lasts until `release`."""
        if self._holder is None:
            self._holder = who
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came just as nobody waited for it any more
                self.release()
            raise

    def release(self) -> None:
        """On to the next: one of somebody else, if there is any."""
        if self._holder is not None and self._holder in self._waiting:
            self._waiting.move_to_end(self._holder)
        self._holder = None
        while self._waiting and self._holder is None:
            who, line = self._waiting.popitem(last=False)
            while line and self._holder is None:
                if not (turn := line.popleft()).done():
                    turn.set_result(None)
                    self._holder = who
            if line:
                self._waiting[who] = line
