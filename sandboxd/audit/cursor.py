"""A sink's place in the journal: kept on disk, and read on from, a batch at a time.

Never skips a record that is there: a place on disk that does not lead to the next record is searched for, one that
cannot be read is the oldest record there is. What is gone is counted. Called by `audit.feed`, one reader per sink.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandboxd.audit.choice import Choice, head
from sandboxd.audit.journal import Position
from sandboxd.audit.line import LineDamaged, decode
from sandboxd.audit.segment import Segment, lines, open_private, private_directory, segments
from sandboxd.sink.base import Record

BATCH_RECORDS = 256
BATCH_BYTES = 1 << 20  # of lines, with the one that passes it
LEFT_OUT_BYTES = 1 << 20  # of lines that the filter leaves out, before others have their turn
_END = 1 << 62  # of what can be an offset: reading from there on must not pass what the kernel counts with


class Readable(Protocol):
    """What reading needs of `audit.recorder.Recorder`."""

    @property
    def directory(self) -> Path: ...

    @property
    def readable(self) -> Position: ...


@dataclass(frozen=True, slots=True)
class Cursor:
    """Behind record `seq`: so many bytes into the segment that begins with record `segment`."""

    segment: int
    offset: int
    seq: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read in one go. `missing` sequence numbers from `missing_from` on are not in the journal any more."""

    records: tuple[Record, ...]  # without those that the filter leaves out
    after: Cursor
    left_out: int
    oldest: str  # time of the first of all that was looked at
    missing_from: int
    missing: int


class Reader:
    """Reads on from `cursor`, which is the caller's to move: to a batch's `after`, once it needs it no more."""

    def __init__(self, source: Readable, choice: Choice, cursor: Cursor | None) -> None:
        self._source = source
        self._choice = choice
        self._proved = cursor is None  # what the file said of the place has led to the next record
        self.cursor = self._oldest() if cursor is None else cursor

    def read(self) -> Batch | None:
        """What comes next; None when there is nothing new. LineDamaged, or OSError if the disk fails."""
        readable = self._source.readable
        if self.cursor.seq > readable.link.seq:
            # The journal lost its tail (power cut): send again rather than miss something.
            self.cursor, self._proved = self._oldest(), True
        while self.cursor.seq < readable.link.seq:
            segment, offset = self._place()
            newest = segment.first_seq == readable.segment
            try:
                batch = self._read_from(segment, offset, readable.offset if newest else None)
            except FileNotFoundError:
                continue  # retention was faster
            except LineDamaged:
                if self._proved:
                    raise
                self._search()
                continue
            exhausted = batch.after.seq == self.cursor.seq
            if not self._proved and ((exhausted and newest) or batch.missing):
                self._search()
                continue
            if not exhausted:
                self._proved = True
                return batch
            if newest:
                return None
            self.cursor = Cursor(segment.first_seq + 1, 0, self.cursor.seq)  # the next segment
        return None

    def _read_from(self, segment: Segment, offset: int, end: int | None) -> Batch:
        gathered = _Gathered(self._choice, self.cursor.seq)
        descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for at, line in lines(descriptor, offset, end):
                gathered.look_at(line)
                offset = at + len(line) + 1
                if gathered.full:
                    break
        finally:
            os.close(descriptor)
        return gathered.batch(segment, offset)

    def _search(self) -> None:
        """The saved place is not behind that record, as on a damaged disk: read all, and send what comes after it."""
        self.cursor = Cursor(0, 0, self.cursor.seq)
        self._proved = True

    def _place(self) -> tuple[Segment, int]:
        """The cursor's segment; the next one if it is exhausted or gone."""
        found = segments(self._source.directory)
        for segment in found:
            if segment.first_seq >= self.cursor.segment:
                return segment, self.cursor.offset if segment.first_seq == self.cursor.segment else 0
        return found[-1], 0

    def _oldest(self) -> Cursor:
        first_seq = segments(self._source.directory)[0].first_seq
        return Cursor(first_seq, 0, first_seq - 1)


class _Gathered:
    """What one reading has come by."""

    def __init__(self, choice: Choice, after_seq: int) -> None:
        self._choice = choice
        self._seq = self._after_seq = after_seq
        self._records: list[Record] = []
        self._oldest = ""
        self._left_out = self._left_out_bytes = self._taken_bytes = 0
        self._missing = self._missing_from = 0

    @property
    def full(self) -> bool:
        return (
            len(self._records) == BATCH_RECORDS
            or self._taken_bytes >= BATCH_BYTES
            or self._left_out_bytes >= LEFT_OUT_BYTES
        )

    def look_at(self, line: bytes) -> None:
        record: Record | None = None
        ending = head(line)
        if ending is None or self._choice.may_take(ending.rule, ending.priority):
            record = decode(line)
            seq, time = record.seq, record.time
        else:
            seq, time = ending.seq, ending.time
        if seq <= self._after_seq:
            return
        if seq > self._seq + 1:
            self._missing_from = self._missing_from or self._seq + 1
            self._missing += seq - self._seq - 1
        self._seq = seq
        self._oldest = self._oldest or time
        if record is not None and self._choice.takes(record):
            self._records.append(record)
            self._taken_bytes += len(line)
        else:
            self._left_out += 1
            self._left_out_bytes += len(line)

    def batch(self, segment: Segment, offset: int) -> Batch:
        after = Cursor(segment.first_seq, offset, self._seq)
        return Batch(tuple(self._records), after, self._left_out, self._oldest, self._missing_from, self._missing)


def load(directory: Path, name: str) -> Cursor | None:
    """The saved place of that sink; None if there is none that can be read."""
    try:
        value = json.loads((directory / f"{name}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    match value:
        case {"segment": int(segment), "offset": int(offset), "seq": int(seq)} if all(
            0 <= number < _END for number in (segment, offset, seq)
        ):
            return Cursor(segment, offset, seq)
        case _:
            return None


def save(directory: Path, name: str, cursor: Cursor, *, durable: bool = False) -> None:
    """Whole or not at all; `durable`: also after a power cut. OSError if it cannot be written."""
    folder = private_directory(directory)
    try:
        descriptor = open_private(folder, f".{name}.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"segment": cursor.segment, "offset": cursor.offset, "seq": cursor.seq}, file)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.rename(f".{name}.json", f"{name}.json", src_dir_fd=folder, dst_dir_fd=folder)
        if durable:
            os.fsync(folder)
    finally:
        os.close(folder)
