"""Sends records one at a time, several at once, and never one before the one before it of the same execution was taken.

Those of no execution keep their order as well. What was taken is not sent again while the daemon lives, so that one
record that is not taken costs no other a second sending. Used by the sinks that send each event by itself.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from sandboxd.sink.base import Record, SinkRefused, SinkUnavailable


class ByExecution:
    """`send_one` raises SinkUnavailable or SinkRefused for a record that is not taken."""

    def __init__(self, most_at_once: int, send_one: Callable[[Record], Awaitable[None]]) -> None:
        self._most_at_once = most_at_once
        self._send_one = send_one
        self._taken: set[tuple[str, int]] = set()  # of the records whose sending has failed as a whole

    async def send(self, records: Sequence[Record]) -> None:
        """Returns once all are taken; else what one of them met, a refusal before anything else."""
        queues = deque(_queues(record for record in records if (record.boot, record.seq) not in self._taken))
        failures: list[SinkUnavailable | SinkRefused] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._most_at_once, len(queues))):
                group.create_task(self._work(queues, failures))
        if failures:
            raise next((failure for failure in failures if isinstance(failure, SinkRefused)), failures[0])
        self._taken.clear()

    async def _work(self, queues: deque[list[Record]], failures: list[SinkUnavailable | SinkRefused]) -> None:
        """Ends at the first failure of any of these tasks, its own record sent to the end."""
        while queues and not failures:
            for record in queues.popleft():
                if failures:
                    return
                try:
                    await self._send_one(record)
                except (SinkUnavailable, SinkRefused) as failure:
                    failures.append(failure)
                else:
                    self._taken.add((record.boot, record.seq))


def _queues(records: Iterable[Record]) -> Iterable[list[Record]]:
    """One for each execution, in the order of each one's first record."""
    queues: dict[str, list[Record]] = {}
    for record in records:
        queues.setdefault(dict(record.ids).get("execution_id", ""), []).append(record)
    return queues.values()
