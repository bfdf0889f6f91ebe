"""Feeds one sink from the journal: its own task, its own place in the journal on disk, its own retries.

Never holds up the journal or another sink, never skips a record: after a crash it sends again from the last place that
it saved (at least once). One `Feed` per sink, made by the daemon.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandboxd.audit.journal import Position
from sandboxd.audit.line import LineDamaged, decode
from sandboxd.audit.segment import Segment, lines, open_private, private_directory, segments
from sandboxd.settings.sinks.base import SinkSettings
from sandboxd.sink.base import Record, Sink, SinkUnavailable

BATCH_RECORDS = 256
LINGER_SECONDS = 0.1  # records come close together: sent together they cost less, and none of it while a caller waits
SAVE_SECONDS = 1.0
RETRY_FIRST_SECONDS = 0.5
RETRY_MOST_SECONDS = 60.0
_END = 1 << 62  # of what can be an offset: reading from there on must not pass what the kernel counts with

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What a feed needs of `audit.recorder.Recorder`."""

    @property
    def directory(self) -> Path: ...

    @property
    def readable(self) -> Position: ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How one sink does, since the daemon started. Times are Unix time, 0 where it has not happened yet."""

    name: str
    type: str
    required: bool
    sent_records: int
    lag_records: int  # on record, and not taken yet
    lag_seconds: float  # age of the oldest of them
    retries: int  # attempts that it refused
    failures: int  # of these, the last ones in a row: 0 when it is well
    last_error: str
    last_error_at: float
    last_success_at: float


@dataclass(frozen=True, slots=True)
class Cursor:
    """Behind record `seq`: so many bytes into the segment that begins with record `segment`."""

    segment: int
    offset: int
    seq: int


START = Cursor(0, 0, 0)


class Feed:
    """`run` it as a task; `close` ends it with its place saved. `directory` holds one file per sink."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        settings: SinkSettings,
        directory: Path,
        *,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._sink = sink
        self._settings = settings
        self._directory = directory
        self._jitter = jitter
        self._sleep = sleep
        self._clock = clock
        self._news = asyncio.Event()
        self._news.set()
        self._cursor = self._saved = load(directory, settings.name)
        self._proved = self._cursor == START  # what the file said of the place has led to the next record
        self._failures = 0
        self.sent_records = 0
        self.refusals = 0
        self.refused_at = 0.0  # Unix time of the last one

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def lag(self) -> int:
        """Records that the sink has not taken yet."""
        return self._source.readable.link.seq - self._cursor.seq

    @property
    def failures(self) -> int:
        """Attempts in a row that the sink refused; 0 when it is well."""
        return self._failures

    async def run(self) -> None:
        """Until cancelled. A damaged journal ends it, logged."""
        unsubscribe = self._source.subscribe(self._news.set)
        try:
            while True:
                await self._wait()
                await self._sleep(LINGER_SECONDS)
                self._news.clear()
                while batch := self._read():
                    await self._deliver(batch)
        except LineDamaged as error:
            _log.error(
                "sink feed stopped at a damaged record", extra={"sink": self._settings.name, "error": str(error)}
            )
        finally:
            unsubscribe()
            self._save()
            await self._sink.close()

    async def _wait(self) -> None:
        """For news; a place that is not saved yet is saved once it has been quiet for a moment."""
        if self._cursor != self._saved:
            try:
                await asyncio.wait_for(self._news.wait(), SAVE_SECONDS)
            except TimeoutError:
                self._save()
        await self._news.wait()

    async def _deliver(self, batch: tuple[Cursor, tuple[Record, ...]]) -> None:
        after, records = batch
        while True:
            try:
                await self._sink.send(records)
            except (OSError, SinkUnavailable) as error:
                self._failures += 1
                self.refusals += 1
                self.refused_at = self._clock()
                if self._failures == 1:
                    _log.warning("sink does not accept", extra={"sink": self._settings.name, "error": str(error)})
                most = min(RETRY_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 16), RETRY_MOST_SECONDS)
                await self._sleep(most * (0.5 + self._jitter() / 2))
            else:
                self._failures = 0
                self.sent_records += len(records)
                self._cursor = after
                if len(records) == BATCH_RECORDS:
                    self._save()
                return

    def _read(self) -> tuple[Cursor, tuple[Record, ...]] | None:
        """The next records and the place behind them; None when there is nothing new."""
        readable = self._source.readable
        if self._cursor.seq > readable.link.seq:
            self._cursor = START  # the journal lost its tail (power cut): send again rather than miss something
        while self._cursor.seq < readable.link.seq:
            segment, offset = self._place()
            end = readable.offset if segment.first_seq == readable.segment else None
            try:
                cursor, records = _records(segment, offset, end, self._cursor.seq)
            except LineDamaged:
                if self._proved:
                    raise
                self._search()
                continue
            exhausted = not records and segment.first_seq == readable.segment
            if not self._proved and (exhausted or (records and records[0].seq != self._cursor.seq + 1)):
                self._search()
                continue
            if records:
                self._proved = True
                return cursor, records
            if exhausted:
                return None
            self._cursor = Cursor(segment.first_seq + 1, 0, self._cursor.seq)  # this segment is exhausted
        return None

    def _search(self) -> None:
        """The saved place is not behind that record, as on a damaged disk: read all, and send what comes after it."""
        self._cursor = Cursor(0, 0, self._cursor.seq)
        self._proved = True

    def _place(self) -> tuple[Segment, int]:
        """The cursor's segment; the next one if it is exhausted or gone."""
        found = segments(self._source.directory)
        for segment in found:
            if segment.first_seq >= self._cursor.segment:
                return segment, self._cursor.offset if segment.first_seq == self._cursor.segment else 0
        return found[-1], 0

    def _save(self) -> None:
        """Failing is no harm but records sent again after a crash."""
        if self._cursor != self._saved:
            with contextlib.suppress(OSError):
                save(self._directory, self._settings.name, self._cursor)
                self._saved = self._cursor


def load(directory: Path, name: str) -> Cursor:
    """The saved place of that sink; the journal's start if there is none that can be read."""
    try:
        value = json.loads((directory / f"{name}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return START
    match value:
        case {"segment": int(segment), "offset": int(offset), "seq": int(seq)} if all(
            0 <= number < _END for number in (segment, offset, seq)
        ):
            return Cursor(segment, offset, seq)
        case _:
            return START


def save(directory: Path, name: str, cursor: Cursor) -> None:
    """Whole or not at all. OSError if it cannot be written."""
    folder = private_directory(directory)
    try:
        descriptor = open_private(folder, f".{name}.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"segment": cursor.segment, "offset": cursor.offset, "seq": cursor.seq}, file)
        os.rename(f".{name}.json", f"{name}.json", src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _records(segment: Segment, offset: int, end: int | None, after: int) -> tuple[Cursor, tuple[Record, ...]]:
    """Up to a batch of records with a sequence number above `after`."""
    found: list[Record] = []
    descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for at, line in lines(descriptor, offset, end):
            record = decode(line)
            offset = at + len(line) + 1
            if record.seq > after:
                found.append(record)
            if len(found) == BATCH_RECORDS:
                break
    finally:
        os.close(descriptor)
    return Cursor(segment.first_seq, offset, found[-1].seq if found else after), tuple(found)
