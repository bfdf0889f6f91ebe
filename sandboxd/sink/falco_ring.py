"""Events that wait to be fetched: the newest of them, within a count and a size. Whoever fetches one is the only one.

Never grows beyond its bounds and never waits for anybody: what is too old is dropped, and counted. Used by
`falco_grpc`.
"""

import asyncio
from collections import deque


class Ring:
    """Not for threads. An event larger than all of it is dropped like one that is too old."""

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._watchers: set[asyncio.Event] = set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._bytes

    def put(self, event: bytes) -> None:
        self._events.append(event)
        self._bytes += len(event)
        self._bound()
        for watcher in self._watchers:
            watcher.set()

    def take(self) -> bytes | None:
        """The oldest, which is then nobody else's; None if there is none."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._bytes -= len(event)
        return event

    def give_back(self, event: bytes) -> None:
        """It was taken and could not be handed on: it is the oldest again."""
        self._events.appendleft(event)
        self._bytes += len(event)
        self._bound()
        for watcher in self._watchers:
            watcher.set()

    def watch(self, news: asyncio.Event) -> None:
        """Set it with each event, until `unwatch`."""
        self._watchers.add(news)

    def unwatch(self, news: asyncio.Event) -> None:
        self._watchers.discard(news)

    def _bound(self) -> None:
        while len(self._events) > self._most_events or self._bytes > self._most_bytes:
            self._bytes -= len(self._events.popleft())
            self.dropped += 1
