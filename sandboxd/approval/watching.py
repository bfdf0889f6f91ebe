"""Whoever watches cases: each has a bounded queue of news, and one that does not read falls out instead of growing.

Used by `office`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sandboxd.approval.case import Update
from sandboxd.errors import Draining, Overloaded, SandboxdError

MAX_UNREAD = 256


class News:
    """What one watcher has not read yet."""

    def __init__(self, wanted: Callable[[Update], bool]) -> None:
        self._wanted = wanted
        self._unread: deque[Update] = deque()
        self._end: SandboxdError | None = None
        self._there = asyncio.Event()

    async def get(self) -> Update:
        """The next; the error that ended the watch once that has ended."""
        await self._there.wait()
        if self._end is not None:
            raise self._end
        update = self._unread.popleft()
        if not self._unread:
            self._there.clear()
        return update

    def put(self, update: Update) -> None:
        if self._end is not None or not self._wanted(update):
            return
        if len(self._unread) == MAX_UNREAD:
            self.end(Overloaded("what is watched was not read in time; watch anew", reason="watch_behind"))
            return
        self._unread.append(update)
        self._there.set()

    def end(self, error: SandboxdError) -> None:
        self._end = error
        self._unread.clear()
        self._there.set()


class Watchers:
    def __init__(self) -> None:
        self._all: set[News] = set()
        self._closed = False

    @contextmanager
    def watching(self, wanted: Callable[[Update], bool]) -> Iterator[News]:
        news = News(wanted)
        if self._closed:
            news.end(_closed())
        self._all.add(news)
        try:
            yield news
        finally:
            self._all.discard(news)

    def tell(self, update: Update) -> None:
        for news in self._all:
            news.put(update)

    def close(self) -> None:
        self._closed = True
        for news in self._all:
            news.end(_closed())


def _closed() -> Draining:
    return Draining("the node is draining; watch anew once it is back")
