"""The questions of one sandbox: each is put to the mediator when the one before is answered, so no sandbox has many.

Bounded by what init may have open. What nobody waits for any more is not asked. Used by `process_sandbox` alone.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from errno import EACCES

from sandboxd.action import ProcessExec
from sandboxd.model import RefusedCalls
from sandboxd.runtime.base import Mediator
from sandboxd.spawner import wire

MOST_WAITING = 256  # init has a quarter of it open, and tells of so many refusals only if its clock is mad

log = logging.getLogger(__name__)


class Docket:
    """`answer` sends to init; it may be called after the sandbox has gone."""

    def __init__(self, mediator: Mediator, answer: Callable[[wire.Answered], None]) -> None:
        self._mediator = mediator
        self._answer = answer
        self._waiting: deque[wire.Asked | wire.CallRefused] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._over = False

    def add(self, message: wire.Asked | wire.CallRefused) -> None:
        """`wire.ProtocolError` if there are too many."""
        if len(self._waiting) >= MOST_WAITING:
            raise wire.ProtocolError(f"init has more than {MOST_WAITING} open questions")
        self._waiting.append(message)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
            self._worker.add_done_callback(_complain)

    async def settle(self) -> None:
        """Nothing runs any more: what is under way ends, refusals are still told, and questions are let go."""
        self._over = True
        if self._worker is not None:
            await asyncio.wait({self._worker})

    async def _work(self) -> None:
        try:
            while self._waiting:
                match self._waiting.popleft():
                    case wire.Asked() as asked if not self._over:
                        action = ProcessExec(asked.image, asked.argv, asked.cwd, asked.pid, asked.parent_pid)
                        allowed = await self._mediator.may_exec(action)
                        self._answer(wire.Answered(asked.request_id, 0 if allowed else EACCES))
                    case wire.CallRefused() as told:
                        await self._mediator.refused(
                            RefusedCalls(told.number, told.pid, told.errno, told.reason, told.count)
                        )
        finally:
            self._worker = None


def _complain(worker: asyncio.Task[None]) -> None:
    if not worker.cancelled() and (error := worker.exception()) is not None:
        log.error("a question was not answered", exc_info=error)
