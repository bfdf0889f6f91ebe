"""A sink that keeps what it takes, and refuses or hangs when a test says so."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from sandboxd.settings.sinks.base import SinkSettings
from sandboxd.sink.base import Record, SinkRefused, SinkUnavailable

SETTINGS = SinkSettings(type="fake")
POISON = "poison"


@dataclass(slots=True)
class FakeSink:
    """`refusals` attempts fail before one succeeds; while `stuck` is set nothing returns.

    What says in `detail` that it is poison it never takes; it says which it is unless it is `vague`.
    """

    refusals: int = 0
    vague: bool = False
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
        for record in records:
            if dict(record.fields).get("detail") == POISON:
                raise SinkRefused("400", None if self.vague else record.seq)
        self.taken.extend(records)

    async def close(self) -> None:
        self.closed = True

    async def has(self, count: int) -> None:
        """Until that many records were taken."""
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                await self._next_attempt()

    async def tried(self, count: int) -> None:
        """Until that many attempts were made."""
        async with asyncio.timeout(20):
            while self.attempts < count:
                await self._next_attempt()

    async def _next_attempt(self) -> None:
        self.news.clear()
        await self.news.wait()
