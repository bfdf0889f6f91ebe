"""The journal: append-only segments of chained lines. What it returns is written; what it could not write never was.

Each segment begins with a signed checkpoint, which closes the one before. Never leaves a hole or a partial line behind
a failed write, never has a second writer, never follows a link. Written by `audit.recorder`; read by `audit.cursor`
and `audit.history`; checked by `audit.verify`.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxd.audit import checkpoint
from sandboxd.audit.line import ORIGIN, LineDamaged, Link, before, check, decode, encode, follow, written_ns
from sandboxd.audit.segment import (
    LONGEST_LINE_BYTES,
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
DAMAGED = "audit_damaged"
Seal = Callable[[Link, int], dict[str, object]]  # where the chain stands and the time → content of a checkpoint


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
class Sealed:
    """A checkpoint as it stands in the journal, with its newline."""

    seq: int
    line: bytes


class Journal:
    """One writer's end. `sync` and `keep` may run in a thread. OSError never leaves it: that is AuditUnavailable."""

    def __init__(self, directory: Path, boot: str, node: str, segment_bytes: int, seal: Seal) -> None:
        """Open or make the journal of that directory; AuditUnavailable if it is damaged, locked or not writable."""
        self._path = directory
        self._boot = boot
        self._node = node
        self._segment_bytes = segment_bytes
        self._seal = seal
        self._descriptor = -1
        self._sealed: Sealed | None = None
        self.begun_ns = 0  # when the first record of the newest segment was written, 0 if it has none
        self._dirty = False
        self._syncing = False
        self._sync_failed = False
        self.repair: Repair | None = None
        self.key_id = ""  # of the last checkpoint there was when it was opened
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
    def holds_nothing(self) -> bool:
        """The newest segment has no record but the checkpoint that it begins with."""
        return self._position.link.seq <= self._begin.link.seq + 1

    @property
    def directory(self) -> Path:
        return self._path

    @property
    def sealed(self) -> "Sealed | None":
        """The last checkpoint that this writer wrote."""
        return self._sealed

    def append(self, content: dict[str, object], time_ns: int) -> Position:
        """Write one record (`line.body`), whole or not at all; the place behind it."""
        self.rotate_if_full()
        if self._position.offset == 0:
            self.checkpoint(time_ns)
        self._write(encode(content, self._position.link, self._boot, self._node, time_ns))
        return self._position

    def checkpoint(self, time_ns: int) -> Position:
        """Write a signed record of all that came before it; the place behind it."""
        link, begins = self._position.link, self._position.offset == 0
        data = encode(self._seal(link, time_ns), link, self._boot, self._node, time_ns)
        self._write(data)
        self._sealed = Sealed(link.seq + 1, data)
        if begins:
            self.begun_ns = time_ns
        return self._position

    def keep(self, sealed: "Sealed") -> None:
        """Put a checkpoint that is on the disk into the file beside the segments. Blocks; may run in a thread."""
        with _as_unavailable(self._path):
            checkpoint.save(self._directory, sealed.line)

    def _write(self, data: bytes) -> None:
        with _as_unavailable(self._path):
            self._mend()
            at = self._position
            self._dirty = True  # until all of it is there
            written = os.write(self._descriptor, data)
            if written != len(data):
                self._mend()
                raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written")
            self._dirty = False
        self.written_bytes += written
        self._position = Position(at.segment, at.offset + len(data), follow(at.link, data[:-1]))

    def sync(self) -> None:
        """Everything appended before this call is on the disk afterwards. Blocks; may run in a thread.

        After a failure `rewind` has to come: the kernel tells it once, and a second sync would succeed on lost data. Or
        `give_up_sync`, where nobody was promised more than that the kernel has it.
        """
        self._syncing = True
        with _as_unavailable(self._path):
            if self._sync_failed:
                raise OSError(errno.EIO, "an earlier record did not reach the disk")
            os.fdatasync(self._descriptor)
        self._syncing = False

    def give_up_sync(self) -> None:
        """Go on after a sync that failed."""
        self._syncing = self._sync_failed = False

    def rewind(self, position: Position) -> None:
        """Take back every record behind `position`: they could not be made durable, and nobody was told of them."""
        # An earlier segment was synced whole when this one was begun.
        self._position = position if position.segment == self._begin.segment else self._begin
        if self._sealed is not None and self._sealed.seq > self._position.link.seq:
            self._sealed = None
        self._dirty, self._syncing, self._sync_failed = True, False, False
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
        if self._position.offset >= self._segment_bytes:
            self.rotate()

    def rotate(self) -> None:
        """Begin a new segment; the old one is on the disk first, so that a tear can only be in the newest."""
        if self._syncing:
            return  # it holds the descriptor, and its failure must not be taken for this one's
        with _as_unavailable(self._path):
            self._mend()
            self._sync_failed = True  # unless it succeeds: others may wait for the same records
            os.fdatasync(self._descriptor)
            self._sync_failed = False
            link = self._position.link
            descriptor = self._create(link.seq + 1)
            os.close(self._descriptor)
            self._descriptor = descriptor
            self._position = self._begin = Position(link.seq + 1, 0, link)
            self.begun_ns = 0

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
            self._check_kept(ORIGIN)
            self._descriptor = self._create(1)
            return Position(1, 0, ORIGIN), Position(1, 0, ORIGIN)
        link = _end_of(found[-2]) if len(found) > 1 else _start_of(found[-1])
        newest = found[-1]
        scan = _scan(newest, link)
        if scan.bad:
            raise _damaged(f"{newest.path} line {scan.lines + 1} (record {scan.link.seq + 1}): {scan.bad}")
        self._check_kept(scan.link)
        self.begun_ns = scan.begun_ns
        self._descriptor = open_private(self._directory, newest.path.name, os.O_RDWR | os.O_APPEND)
        if scan.torn_bytes:
            os.ftruncate(self._descriptor, scan.end)
            os.fdatasync(self._descriptor)
            self.repair = Repair(newest.path.name, scan.torn_bytes)
        return Position(newest.first_seq, 0, link), Position(newest.first_seq, scan.end, scan.link)

    def _check_kept(self, end: Link) -> None:
        """That the journal still comes as far as its last checkpoint, which a crash cannot have taken."""
        line = checkpoint.load(self._directory)
        if line is None:
            if end.seq > 1:
                raise _damaged(
                    f"the file with its last checkpoint, {checkpoint.LAST!r}, is gone, unless a version wrote it that"
                    " signed nothing yet"
                )
            return
        try:
            kept = checkpoint.read(decode(line))
        except LineDamaged as error:
            raise _damaged(f"{self._path / checkpoint.LAST}: {error}") from error
        if kept.seq > end.seq:
            raise _damaged(f"it was cut behind record {end.seq}: record {kept.seq} was a checkpoint")
        self.key_id = kept.key_id


@dataclass(frozen=True, slots=True)
class _Scan:
    link: Link  # after the last good line
    end: int
    lines: int
    begun_ns: int
    torn_bytes: int
    bad: str  # what is wrong with the line after the last good one


def _scan(segment: Segment, link: Link) -> _Scan:
    """Every line of a segment, up to the first bad one. `link` is where the chain stands before it."""
    descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        end = count = begun_ns = 0
        if segment.first_seq != link.seq + 1:
            return _Scan(link, end, count, begun_ns, 0, "the segment that holds it is missing before this one")
        for offset, line in lines(descriptor):
            try:
                link = check(link, line)
                begun_ns = begun_ns or written_ns(line)
            except LineDamaged as error:
                return _Scan(link, end, count, begun_ns, 0, str(error))
            end, count = offset + len(line) + 1, count + 1
        torn = os.fstat(descriptor).st_size - end
        bad = f"{torn} bytes without an end" if torn >= LONGEST_LINE_BYTES else ""
        return _Scan(link, end, count, begun_ns, torn, bad)
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
        raise _damaged(f"last line of {segment.path}: {error}") from error
    finally:
        os.close(descriptor)
    return follow(link, last)


def _damaged(what: str) -> AuditUnavailable:
    return AuditUnavailable(
        f"the journal is damaged: {what}; keep it as evidence, and give sandboxd an empty state_dir", reason=DAMAGED
    )


@contextlib.contextmanager
def _as_unavailable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuditUnavailable(
            f"the journal in {str(directory)!r} cannot be written: {error.strerror or error}; free or mend its disk"
        ) from error
