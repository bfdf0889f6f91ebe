"""What the journal needs from time to time: checkpoints, another segment, retention, a look whether it is well again.

Never in the way of an execution: signing takes 60 microseconds, and what waits for the disk does so in a thread. One
`Upkeep` per recorder, made by the daemon.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from sandboxd.audit.line import LineDamaged
from sandboxd.audit.recorder import Recorder
from sandboxd.audit.retention import Archive, Confirmed, Limits, Removal
from sandboxd.errors import AuditUnavailable

TICK_SECONDS = 1.0
RETENTION_SECONDS = 10.0

log = logging.getLogger(__name__)


class Settings(Protocol):
    """What it needs of `settings.audit.Audit`."""

    @property
    def segment_seconds(self) -> float: ...
    @property
    def checkpoint_seconds(self) -> float: ...
    @property
    def retain_seconds(self) -> float | None: ...
    @property
    def retain_bytes(self) -> int | None: ...


class Upkeep:
    """`run` it as a task; cancelling it ends it at any moment without harm."""

    def __init__(
        self,
        recorder: Recorder,
        settings: Settings,
        confirmed: Confirmed,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        steady: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._recorder = recorder
        self._settings = settings
        self._confirmed = confirmed
        self._clock_ns = clock_ns
        self._steady = steady
        self._sleep = sleep
        self._limits = Limits(settings.retain_seconds, settings.retain_bytes)
        self._archive = Archive(recorder.directory, recorder.documents)
        self._sealed_at = steady()
        self._trimmed_at = float("-inf")
        self._complaint = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(TICK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Do what is due. What cannot be done is told once and tried again the next time."""
        try:
            await self._see_to_the_journal()
            await self._retain()
        except (AuditUnavailable, OSError, LineDamaged) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("upkeep of the journal failed, trying again", extra={"error": self._complaint})
        else:
            self._complaint = ""

    async def _see_to_the_journal(self) -> None:
        recorder, now = self._recorder, self._steady()
        if not (recorder.available() and recorder.whole):
            await recorder.mend()
        recorder.rotate_if_older(self._settings.segment_seconds)
        if not recorder.sealed and now - self._sealed_at >= self._settings.checkpoint_seconds:
            self._sealed_at = now
            await recorder.checkpoint()
        else:
            await recorder.keep()  # of a segment that was begun meanwhile

    async def _retain(self) -> None:
        now = self._steady()
        if self._limits == Limits(None, None) or now - self._trimmed_at < RETENTION_SECONDS:
            return
        self._trimmed_at = now
        recorder = self._recorder
        limits = (self._limits, self._clock_ns(), self._confirmed(), recorder.open_pack)
        going = await asyncio.to_thread(self._archive.removal, *limits)
        if going is not None:
            await self._trim(going)

    async def _trim(self, going: Removal) -> None:
        """On record and signed first: `verify` takes nothing for trimmed that no record says so of."""
        await self._recorder.record(going.event())
        await self._recorder.checkpoint()
        await asyncio.to_thread(self._archive.remove, going)
        log.info("journal trimmed", extra={"first_seq": going.first_seq, "segments": len(going.segments)})
