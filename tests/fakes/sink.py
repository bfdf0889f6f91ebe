"""A sink that keeps what it takes, and refuses or hangs when a test says so."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from sandboxd.settings.sinks.base import SinkSettings
from sandboxd.sink.base import Record, SinkUnavailable

SETTINGS = SinkSettings(type="fake")


@dataclass(slots=True)
class FakeSink:
    """`refusals` attempts fail before one succeeds; while `stuck` is set nothing returns."""

    refusals: int = 0
    stuck: bool = False
    taken: list[Record] = field(default_factory=list)
    attempts: int = 0
    closed: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, records: Sequence[Record]) -> None:
        self.attempts += 1
        self.news.set()
        if self.stuck:
            await asyncio.Event().wait()
        if self.refusals:
            self.refusals -= 1
            raise SinkUnavailable("not now")
        self.taken.extend(records)

    async def close(self) -> None:
        self.closed = True

    async def has(self, count: int) -> None:
        """Until that many records were taken."""
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                self.news.clear()
                await self.news.wait()
