"""One running execution that an operator may have stand still: freezing it, and holding it so that nothing ends it.

A frozen one still ends at its wall deadline, or when its caller goes away; a held one only by an operator or with the
node. Never leaves a freeze half done because whoever asked for it went away. Made by `execution`, used by `response`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sandboxd.errors import Unenforceable
from sandboxd.gate import Subject
from sandboxd.model import Limits
from sandboxd.runtime.base import Runtime
from sandboxd.supervise import Supervision

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is known of it besides its record."""

    subject: Subject
    limits: Limits


class Suspension:
    """Of one sandbox, from its launch on."""

    def __init__(self, runtime: Runtime, supervision: Supervision, dossier: Dossier) -> None:
        self.dossier = dossier
        self._runtime = runtime
        self._supervision = supervision
        self._sandbox_id = dossier.subject.sandbox.id
        self._turn = asyncio.Lock()
        self._turning: set[asyncio.Task[bool]] = set()

    @property
    def frozen(self) -> bool:
        return self._supervision.frozen

    @property
    def held(self) -> bool:
        return self._supervision.held

    async def freeze(self) -> bool:
        """Whether it was not frozen before. `Unenforceable` if it is over, `RuntimeFailed` if it does not stop."""
        return await self._undisturbed(self._freeze)

    async def thaw(self) -> bool:
        """Whether it was frozen before. Errors as above."""
        return await self._undisturbed(self._thaw)

    def hold(self) -> None:
        self._supervision.hold()

    def release(self) -> None:
        """What would have ended it meanwhile does so now."""
        self._supervision.release()

    async def _freeze(self) -> bool:
        async with self._turn:
            await self._supervision.begun.wait()
            if self._supervision.over:
                raise ended()
            if self._supervision.frozen:
                return False
            await self._runtime.pause(self._sandbox_id)
            self._supervision.frozen = True
            return True

    async def _thaw(self) -> bool:
        async with self._turn:
            if self._supervision.over:
                raise ended()
            if not self._supervision.frozen:
                return False
            await self._runtime.resume(self._sandbox_id)
            self._supervision.frozen = False
            return True

    async def _undisturbed(self, act: Callable[[], Awaitable[bool]]) -> bool:
        task = asyncio.ensure_future(act())
        self._turning.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[bool]") -> None:
        self._turning.discard(task)
        if not task.cancelled():
            task.exception()  # read: whoever asked may be gone


def ended() -> Unenforceable:
    return Unenforceable("the execution has ended; there is nothing to freeze or thaw", reason="already_ended")
