"""Records one after the other, with a turn for everybody else in between. Used by sinks that take long to write one.

A batch of them at once would hold up the event loop, and with it whoever waits for a decision.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from sandboxd.sink.base import Record

AT_ONCE = 16


async def in_turns(records: Sequence[Record]) -> AsyncIterator[Record]:
    for index, record in enumerate(records):
        if index % AT_ONCE == 0:
            await asyncio.sleep(0)
        yield record
