"""The journal: append-only segments of chained lines. What it returns is written; what it could not write never was.

Never leaves a hole or a partial line behind a failed write, never has a second writer, never follows a link. Written by
`audit.recorder`; read by `audit.cursor`; `verify` is for whoever checks one.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxd.audit.line import ORIGIN, LineDamaged, Link, before, check, encode, follow
from sandboxd.audit.segment import (
    Segment,
    lines,
    open_private,
    private_directory,
    segment_name,
    segments,
)
from sandboxd.errors import AuditUnavailable

SEGMENT_BYTES = 64 * 1024 * 1024
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records: so many bytes into the segment that begins with record `segment`."""

    segment: int
    offset: int
    link: Link


@dataclass(frozen=True, slots=True)
class Repair:
    """A torn last line that was cut off."""

    segment: str
    removed_bytes: int


@dataclass(frozen=True, slots=True)
class BadRecord:
    """The first record that is not as it was written. `line` counts from 1 within the segment."""

    segment: str
    line: int
    seq: int  # the sequence number that was due there
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    records: int  # good ones, before the first bad one
    first_bad: BadRecord | None
    torn_bytes: int  # of a last line without its end: a crash, or a record being written just now

    @property
    def ok(self) -> bool:
        return self.first_bad is None


class Journal:
    """One writer's end. Not thread-safe but for `sync`. OSError never leaves it: that is AuditUnavailable."""

    def __init__(self, directory: Path, boot: str, node: str, segment_bytes: int) -> None:
        """Open or make the journal of that directory; AuditUnavailable if it is damaged, locked or not writable."""
        self._path = directory
        self._boot = boot
        self._node = node
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._dirty = False
        self._syncing = False
        self.repair: Repair | None = None
        self.written_bytes = 0  # since it was opened
        with contextlib.ExitStack() as acquired, _as_unavailable(directory):
            self._directory = private_directory(directory)
            acquired.callback(os.close, self._directory)
            self._lock = open_private(self._directory, LOCK, os.O_RDWR | os.O_CREAT)
            acquired.callback(os.close, self._lock)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AuditUnavailable(
                    f"the journal in {str(directory)!r} is in use by another sandboxd; give each its own state_dir"
                ) from error
            self._begin, self._position = self._resume()
            acquired.pop_all()

    @property
    def position(self) -> Position:
        """Behind the last record."""
        return self._position

    @property
    def directory(self) -> Path:
        return self._path

    def append(self, content: dict[str, object], time_ns: int) -> Position:
        """Write one record (`line.body`), whole or not at all; the place behind it."""
        self.rotate_if_full()
        with _as_unavailable(self._path):
            self._mend()
            at = self._position
            data = encode(content, at.link, self._boot, self._node, time_ns)
            self._dirty = True  # until all of it is there
            written = os.write(self._descriptor, data)
            if written != len(data):
                self._mend()
                raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written")
            self._dirty = False
        self.written_bytes += written
        self._position = Position(at.segment, at.offset + len(data), follow(at.link, data[:-1]))
        return self._position

    def sync(self) -> None:
        """Everything appended before this call is on the disk afterwards. Blocks; may run in a thread.

        After a failure `rewind` has to come: the kernel tells it once, and a second sync would succeed on lost data.
        """
        self._syncing = True
        with _as_unavailable(self._path):
            os.fdatasync(self._descriptor)
        self._syncing = False

    def rewind(self, position: Position) -> None:
        """Take back every record behind `position`: they could not be made durable, and nobody was told of them."""
        # An earlier segment was synced whole when this one was begun.
        self._position = position if position.segment == self._begin.segment else self._begin
        self._dirty, self._syncing = True, False
        with _as_unavailable(self._path):
            self._mend()

    def close(self) -> None:
        for descriptor in (self._descriptor, self._lock, self._directory):
            os.close(descriptor)

    def _mend(self) -> None:
        """Cut off what a failed write left behind; as long as that fails too, nothing further is written."""
        if self._dirty:
            os.ftruncate(self._descriptor, self._position.offset)
            self._dirty = False

    def rotate_if_full(self) -> None:
        """Begin a new segment; the old one is on the disk first, so that a tear can only be in the newest."""
        if self._position.offset < self._segment_bytes or self._syncing:
            return  # a sync under way holds the descriptor, and its failure must not be taken for this one's
        with _as_unavailable(self._path):
            self._mend()
            os.fdatasync(self._descriptor)
            link = self._position.link
            descriptor = self._create(link.seq + 1)
            os.close(self._descriptor)
            self._descriptor = descriptor
            self._position = self._begin = Position(link.seq + 1, 0, link)

    def _create(self, first_seq: int) -> int:
        # Not O_EXCL: a file of that name can only be the empty one of an attempt that failed in the fsync below.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        descriptor = open_private(self._directory, segment_name(first_seq), flags)
        try:
            os.fsync(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _resume(self) -> tuple[Position, Position]:
        """Begin and end of the newest segment, which is checked first, and its torn last line cut off."""
        found = segments(self._path)
        if not found:
            self._descriptor = self._create(1)
            return Position(1, 0, ORIGIN), Position(1, 0, ORIGIN)
        link = _end_of(found[-2]) if len(found) > 1 else _start_of(found[-1])
        newest = found[-1]
        scan = _scan(newest, link)
        if scan.bad is not None:
            raise AuditUnavailable(
                f"the journal is damaged: {newest.path} line {scan.bad.line} (record {scan.bad.seq}): "
                f"{scan.bad.reason}; keep it as evidence, and give sandboxd an empty state_dir",
                reason="audit_damaged",
            )
        self._descriptor = open_private(self._directory, newest.path.name, os.O_RDWR | os.O_APPEND)
        if scan.torn_bytes:
            os.ftruncate(self._descriptor, scan.end)
            os.fdatasync(self._descriptor)
            self.repair = Repair(newest.path.name, scan.torn_bytes)
        return Position(newest.first_seq, 0, link), Position(newest.first_seq, scan.end, scan.link)


def verify(path: Path) -> VerifyResult:
    """Every record of the journal in that directory, from its oldest segment on. OSError if it cannot be read."""
    found = segments(path)
    link = _start_of(found[0]) if found else ORIGIN
    records = 0
    for segment in found:
        scan = _scan(segment, link)
        records += scan.link.seq - link.seq
        link = scan.link
        if scan.bad is not None:
            return VerifyResult(records, scan.bad, 0)
        if scan.torn_bytes:
            if segment is found[-1]:
                return VerifyResult(records, None, scan.torn_bytes)
            bad = BadRecord(segment.path.name, scan.lines + 1, link.seq + 1, "the line has no end")
            return VerifyResult(records, bad, 0)
    return VerifyResult(records, None, 0)


@dataclass(frozen=True, slots=True)
class _Scan:
    link: Link  # after the last good line
    end: int
    lines: int
    torn_bytes: int
    bad: BadRecord | None


def _scan(segment: Segment, link: Link) -> _Scan:
    """Every line of a segment, up to the first bad one. `link` is where the chain stands before it."""
    descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        end, count = 0, 0
        if segment.first_seq != link.seq + 1:
            bad = BadRecord(segment.path.name, 1, link.seq + 1, "the segment that holds it is missing before this one")
            return _Scan(link, end, count, 0, bad)
        for offset, line in lines(descriptor):
            try:
                link = check(link, line)
            except LineDamaged as error:
                bad = BadRecord(segment.path.name, count + 1, link.seq + 1, str(error))
                return _Scan(link, end, count, 0, bad)
            end, count = offset + len(line) + 1, count + 1
        return _Scan(link, end, count, os.fstat(descriptor).st_size - end, None)
    finally:
        os.close(descriptor)


def _start_of(segment: Segment) -> Link:
    """Before the oldest segment there is: the origin, or what its first line claims where older ones are gone."""
    if segment.first_seq == 1:
        return ORIGIN
    descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _, line in lines(descriptor):
            return before(line)
    except LineDamaged:
        pass  # the scan finds it again, and names it
    finally:
        os.close(descriptor)
    return Link(segment.first_seq - 1, ORIGIN.digest)


def _end_of(segment: Segment) -> Link:
    """Behind the last line of a closed segment, by that line alone: `verify` is what checks the rest."""
    descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        last = b""
        for _, line in lines(descriptor):
            last = line
        link = before(last)
    except LineDamaged as error:
        raise AuditUnavailable(
            f"the journal is damaged: last line of {segment.path}: {error}", reason="audit_damaged"
        ) from error
    finally:
        os.close(descriptor)
    return follow(link, last)


@contextlib.contextmanager
def _as_unavailable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuditUnavailable(
            f"the journal in {str(directory)!r} cannot be written: {error.strerror or error}; free or mend its disk"
        ) from error
