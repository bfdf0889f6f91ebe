"""Writes audit events to the journal and tells the sinks' cursors that there is something to read.

Never lets an event through unwritten: `record` returns once it is with the kernel (`write`) or on the disk (`fsync`),
or raises AuditUnavailable. The only writer of the journal; called by the steps of an execution and by the daemon.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sandboxd.audit.journal import SEGMENT_BYTES, Journal, Position
from sandboxd.audit.line import body
from sandboxd.audit.store import DOCUMENTS, Store
from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event, JournalRepaired

Durability = Literal["write", "fsync"]


class Recorder:
    """Made by `open`. All methods belong to one event loop."""

    def __init__(self, journal: Journal, store: Store, durability: Durability, clock_ns: Callable[[], int]) -> None:
        self._journal = journal
        self._store = store
        self._durability = durability
        self._clock_ns = clock_ns
        self._available = True
        self._durable = journal.position
        self._flushing: asyncio.Task[None] | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._followers: list[Callable[[], None]] = []
        self._observer: Callable[[Event], None] | None = None
        self.failures = 0  # records and documents that could not be written

    @classmethod
    def open(
        cls,
        directory: Path,
        node: str,
        boot_id: str,
        durability: Durability,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> "Recorder":
        """`directory` is the state directory: `journal/` and `documents/` are made in it.

        AuditUnavailable if the journal is damaged (naming the first bad record), locked or not writable.
        """
        journal = Journal(directory / "journal", boot_id, node, segment_bytes)
        try:
            if journal.repair is not None:
                repair = journal.repair
                event = JournalRepaired("", "", "", "", "", "", repair.segment, repair.removed_bytes)
                journal.append(body(event), clock_ns())
            store = Store(directory / DOCUMENTS, fsync=durability == "fsync")
        except OSError as error:
            journal.close()
            raise AuditUnavailable(f"cannot open {str(directory / DOCUMENTS)!r}: {error.strerror}") from error
        except AuditUnavailable:
            journal.close()
            raise
        return cls(journal, store, durability, clock_ns)

    @property
    def directory(self) -> Path:
        """Of the journal's segments."""
        return self._journal.directory

    @property
    def written_bytes(self) -> int:
        """Of records, since this journal was opened."""
        return self._journal.written_bytes

    @property
    def readable(self) -> Position:
        """Sinks may read up to here: in `fsync` mode only what can no longer be taken back."""
        return self._durable if self._durability == "fsync" else self._journal.position

    async def record(self, event: Event) -> int:
        """The event's sequence number, once it is as durable as configured."""
        try:
            position = self._journal.append(body(event), self._clock_ns())
        except AuditUnavailable:
            self._available = False
            self.failures += 1
            raise
        if self._durability == "fsync":
            await self._flushed(position.link.seq)
        self._available = True
        if self._observer is not None:
            self._observer(event)
        self._tell()
        return position.link.seq

    def store(self, document: bytes) -> str:
        """SHA-256 of the document, which is then in the content-addressed store."""
        try:
            return self._store.put(document)
        except OSError as error:
            self.failures += 1
            raise AuditUnavailable(
                f"an audit document cannot be written: {error.strerror or error}; free or mend its disk"
            ) from error

    def available(self) -> bool:
        """Could the last event be written? Recovers with the first one that can."""
        return self._available

    def observe(self, observer: Callable[[Event], None]) -> None:
        """From now on `observer` is given each event that is on record. It returns at once and never raises."""
        self._observer = observer

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after new records; the result ends that."""
        self._followers.append(callback)
        return lambda: self._followers.remove(callback)

    async def close(self) -> None:
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        self._store.close()
        self._journal.close()

    def _tell(self) -> None:
        for follower in self._followers:
            follower()

    async def _flushed(self, seq: int) -> None:
        """Group commit: whoever comes while a flush runs shares the next one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((seq, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await future

    async def _flush(self) -> None:
        try:
            while self._waiters:
                target = self._journal.position
                await asyncio.to_thread(self._journal.sync)
                self._journal.rotate_if_full()
                self._durable = target
                waiting, self._waiters = self._waiters, []
                for seq, future in waiting:
                    if seq > target.link.seq:
                        self._waiters.append((seq, future))
                    elif not future.done():
                        future.set_result(None)
        except AuditUnavailable as error:
            self._take_back(error)
        finally:
            self._flushing = None

    def _take_back(self, error: AuditUnavailable) -> None:
        """After a failed sync nobody knows what is on the disk, so all that was not known to be durable goes."""
        self._available = False
        waiting, self._waiters = self._waiters, []
        self.failures += len(waiting)
        for _, future in waiting:
            if not future.done():
                future.set_exception(AuditUnavailable(error.message))
        # If the cut fails too, the journal does it before it writes again.
        with contextlib.suppress(AuditUnavailable):
            self._journal.rewind(self._durable)
