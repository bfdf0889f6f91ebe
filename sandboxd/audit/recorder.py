"""Writes audit events to the journal and tells the sinks' cursors that there is something to read.

Never lets an event through unwritten: `record` returns once it is with the kernel (`write`) or on the disk (`fsync`),
or raises AuditUnavailable; what was refused so is counted, and on record as soon as anything is. The only writer of the
journal; called by the steps of an execution, by the daemon, and by `audit.upkeep`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sandboxd.audit import checkpoint
from sandboxd.audit.digest import Digest, keyed
from sandboxd.audit.gap import Gap
from sandboxd.audit.journal import SEGMENT_BYTES, Journal, Position, Sealed
from sandboxd.audit.key import KEY_INVALID, KEYS, open_key
from sandboxd.audit.line import body
from sandboxd.audit.store import DOCUMENTS, Store
from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event, JournalRepaired

Durability = Literal["write", "fsync"]

log = logging.getLogger(__name__)


class Recorder:
    """Made by `open`. All methods belong to one event loop."""

    def __init__(
        self, journal: Journal, store: Store, durability: Durability, clock_ns: Callable[[], int], digest: Digest
    ) -> None:
        self.digest = digest  # of what may be secret
        self._journal = journal
        self._store = store
        self._durability = durability
        self._clock_ns = clock_ns
        self._available = True
        self._gap = Gap()
        self._kept_seq = 0  # of the checkpoint in the file beside the segments
        self._keeping: asyncio.Task[None] | None = None
        self._alarm: Callable[[], None] = lambda: None
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
        """`directory` is the state directory: `journal/`, `documents/` and `keys/` are made in it.

        AuditUnavailable if the journal is damaged (naming the first bad record), locked or not writable, or its key is
        not the one that it was signed with.
        """
        key = open_key(directory)
        digest = keyed(key)
        journal = Journal(
            directory / "journal",
            boot_id,
            node,
            segment_bytes,
            lambda link, time_ns: checkpoint.content(key, boot_id, link, time_ns),
        )
        try:
            if journal.key_id not in ("", key.key_id):
                raise AuditUnavailable(
                    f"the journal was signed with the key {journal.key_id!r}, and {str(directory / KEYS)!r} holds "
                    f"{key.key_id!r}; put back the one that signed it",
                    reason=KEY_INVALID,
                )
            if journal.repair is not None:
                repair = journal.repair
                event = JournalRepaired("", "", "", "", "", "", repair.segment, repair.removed_bytes)
                journal.append(body(event, digest), clock_ns())
            journal.checkpoint(clock_ns())
            _keep(journal)
            store = Store(directory / DOCUMENTS, fsync=durability == "fsync")
        except OSError as error:
            journal.close()
            raise AuditUnavailable(f"cannot open {str(directory / DOCUMENTS)!r}: {error.strerror}") from error
        except AuditUnavailable:
            journal.close()
            raise
        return cls(journal, store, durability, clock_ns, digest)

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
        now = self._clock_ns()
        try:
            if self._gap.open:
                self._close_gap(now)
            position = self._journal.append(body(event, self.digest), now)
        except AuditUnavailable:
            self.failures += 1
            self._gap.miss(event, now)
            self._fail()
            raise
        if self._durability == "fsync":
            try:
                await self._flushed(position.link.seq)
            except AuditUnavailable:
                self._gap.miss(event, now)
                raise
        self._available = True
        if self._observer is not None:
            self._observer(event)
        self._tell()
        return position.link.seq

    async def checkpoint(self) -> None:
        """Sign what was written since the last checkpoint, and keep that where a cut journal is found by it.

        AuditUnavailable if it cannot be written, or is not on the disk.
        """
        try:
            if not self.sealed:
                self._journal.checkpoint(self._clock_ns())
        except AuditUnavailable:
            self.failures += 1
            self._fail()
            raise
        self._tell()
        await self.keep()

    async def keep(self) -> None:
        """The last checkpoint, if it is not kept yet. AuditUnavailable if it is not on the disk."""
        while (sealed := self._journal.sealed) is not None and sealed.seq > self._kept_seq:
            if self._keeping is None or self._keeping.done():
                self._keeping = asyncio.create_task(self._keep(sealed))
            await asyncio.shield(self._keeping)

    async def mend(self) -> None:
        """See whether the journal can be written again, and if so, put on record what it did not take meanwhile."""
        if self._gap.open:
            try:
                position = self._close_gap(self._clock_ns())
            except AuditUnavailable:
                self._fail()
                raise
            if self._durability == "fsync":
                await self._flushed(position.link.seq)
        elif not self._available:
            await self.checkpoint()
        self._available = True
        self._tell()

    def rotate_if_older(self, seconds: float) -> None:
        """Begin another segment if the newest was begun so long ago and holds anything. AuditUnavailable if not."""
        journal, now = self._journal, self._clock_ns()
        if journal.begun_ns and now - journal.begun_ns >= seconds * 1e9 and not journal.holds_nothing:
            journal.rotate()

    def store(self, document: bytes) -> str:
        """SHA-256 of the document, which is then in the content-addressed store."""
        try:
            return self._store.put(document)
        except OSError as error:
            self.failures += 1
            self._gap.miss_document(self._clock_ns())
            self._fail()
            raise AuditUnavailable(
                f"an audit document cannot be written: {error.strerror or error}; free or mend its disk"
            ) from error

    def available(self) -> bool:
        """Could the last event be written? Recovers with the first one that can."""
        return self._available

    @property
    def documents(self) -> Path:
        return self._store.directory

    @property
    def open_pack(self) -> str:
        """The pack of documents that is being written, which must stay; empty if there is none."""
        return self._store.open_pack

    @property
    def sealed(self) -> bool:
        """The last record is a checkpoint."""
        sealed = self._journal.sealed
        return sealed is not None and sealed.seq == self._journal.position.link.seq

    @property
    def whole(self) -> bool:
        """Nothing that was refused waits to be put on record."""
        return not self._gap.open

    def on_failure(self, alarm: Callable[[], None]) -> None:
        """From now on `alarm` is called when the journal, after it could be, cannot be written."""
        self._alarm = alarm

    def observe(self, observer: Callable[[Event], None]) -> None:
        """From now on `observer` is given each event on record but checkpoints. It returns at once and never raises."""
        self._observer = observer

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after new records; the result ends that."""
        self._followers.append(callback)
        return lambda: self._followers.remove(callback)

    async def close(self) -> None:
        """Sign the end. What cannot be written any more is lost, and told in the log."""
        try:
            await (self.checkpoint() if self.whole else self.mend())
        except AuditUnavailable as error:
            log.error("the end of the journal is not signed", extra={"error": str(error)})
        running = [task for task in (self._flushing, self._keeping) if task is not None]
        await asyncio.gather(*running, return_exceptions=True)
        if not self.whole:
            log.error("events are not on record and lost", extra={"failures": self.failures})
        self._store.close()
        self._journal.close()

    def _close_gap(self, now: int) -> Position:
        """What was not taken goes on record before anything else."""
        while (missed := self._gap.next(now)) is not None:
            position = self._journal.append(body(missed.event, self.digest), missed.time_ns)
            self._gap.written(position.link.seq)
            if self._observer is not None:
                self._observer(missed.event)
        if self._durability == "write":
            self._gap.durable(self._journal.position.link.seq)
        return self._journal.position

    def _fail(self) -> None:
        was, self._available = self._available, False
        if was:
            self._alarm()

    async def _keep(self, sealed: Sealed) -> None:
        """Never before it is on the disk itself: the file must not name what a power cut takes."""
        if self._durability == "fsync":
            await self._flushed(sealed.seq)
        else:
            try:
                await asyncio.to_thread(self._journal.sync)
            except AuditUnavailable:
                self.failures += 1
                self._journal.give_up_sync()
                raise
        await asyncio.to_thread(self._journal.keep, sealed)
        self._kept_seq = sealed.seq

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
                self._gap.durable(target.link.seq)
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
        waiting, self._waiters = self._waiters, []
        self.failures += len(waiting)
        for _, future in waiting:
            if not future.done():
                future.set_exception(AuditUnavailable(error.message))
        # If the cut fails too, the journal does it before it writes again.
        with contextlib.suppress(AuditUnavailable):
            self._journal.rewind(self._durable)
        self._gap.taken_back()
        self._fail()


def _keep(journal: Journal) -> None:
    """At once, and waiting for the disk: for a start."""
    if (sealed := journal.sealed) is not None:
        journal.sync()
        journal.keep(sealed)
