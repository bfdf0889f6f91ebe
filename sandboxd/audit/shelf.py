"""The index files of a journal, one for each segment: opened, filled, made anew if damaged, removed with the segment.

An index is never needed: `Unusable` tells to look without one. Files are the daemon's alone, as the journal is. Called
by `audit.lookup` on its one thread.
"""

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from urllib.parse import quote

from sandboxd.audit.index import MAX_SEQ, SegmentIndex
from sandboxd.audit.segment import Segment, open_private, private_directory

LEAST_FREE_BYTES = 64 << 20  # what is left of a disk is the journal's
RETRY_SECONDS = 60.0
_PARTS = ("", "-wal", "-journal", "-shm")  # what SQLite keeps beside a database
_NAME = re.compile(r"(\d{20})\.sqlite(?:-wal|-journal|-shm)?", re.ASCII)
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM})


class Unusable(Exception):
    """No index can be had now: the disk is full, or this SQLite lacks the means."""


class Shelf:
    """`directory` is made when it is needed. Belongs to one thread from the first call on."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        least_free_bytes: int = LEAST_FREE_BYTES,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._least_free_bytes = least_free_bytes
        self._opened: tuple[Segment, SegmentIndex] | None = None
        self._complete: set[int] = set()  # closed segments that are known to be indexed whole
        self._kept: set[int] = set()
        self._not_before = 0.0
        self.rebuilt = 0  # indexes that were damaged, or of another journal

    def complete(self, segment: Segment, descriptor: int, end: int | None, until: float) -> SegmentIndex | None:
        """Its index, once all lines before `end` are in; None if they are not by that time. `Unusable`.

        Without `end` nothing more is written to that segment.
        """
        while True:
            try:
                index = self._of(segment, descriptor)
                if end is None and segment.first_seq in self._complete:
                    return index
                while self._fill(index, descriptor, end):
                    if self._clock() > until:
                        return None
                if end is None:
                    index.finish()
                    self._complete.add(segment.first_seq)
            except sqlite3.DatabaseError as error:
                self.discard(error)
            else:
                return index

    def knows(self, segment: Segment) -> bool:
        """A closed one that is indexed whole."""
        return segment.first_seq in self._complete

    def _fill(self, index: SegmentIndex, descriptor: int, end: int | None) -> int:
        """How many lines were added. `Unusable` rather than take the last of the disk."""
        free = os.statvfs(self._directory)
        if free.f_bavail * free.f_frsize < self._least_free_bytes:
            raise self._unusable()
        return index.fill(descriptor, end)

    def discard(self, error: sqlite3.DatabaseError) -> None:
        """The opened one is of no use: have it made anew. `Unusable` if that is not its own fault."""
        if self._opened is None or error.sqlite_errorcode & 0xFF in _FULL:
            raise self._unusable() from error
        segment, index = self._opened
        self._opened = None
        with contextlib.suppress(sqlite3.Error):
            index.close()
        self._remove(segment.first_seq)
        self.rebuilt += 1

    def prune(self, living: Collection[Segment]) -> None:
        """Remove the indexes of segments that are gone."""
        kept = {segment.first_seq for segment in living}
        if self._kept == kept:
            return
        self._kept = kept
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if (match := _NAME.fullmatch(path.name)) and int(match[1]) not in kept:
                    self._remove(int(match[1]))

    def close(self) -> None:
        if self._opened is not None:
            _, index = self._opened
            self._opened = None
            with contextlib.suppress(sqlite3.Error):
                index.close()

    def _of(self, segment: Segment, descriptor: int) -> SegmentIndex:
        """Opened, and of that segment. The one before is closed."""
        if self._opened is not None and self._opened[0] == segment:
            return self._opened[1]
        if self._clock() < self._not_before or segment.first_seq >= MAX_SEQ:
            raise Unusable
        self.close()
        index = self._open(segment)
        if not index.is_of(descriptor):
            self._opened = None
            index.close()
            self._remove(segment.first_seq)
            self.rebuilt += 1
            index = self._open(segment)
        return index

    def _open(self, segment: Segment) -> SegmentIndex:
        try:
            is_new = self._private_file(_name(segment.first_seq))
            if is_new:
                self._remove_parts(segment.first_seq, _PARTS[1:])  # of one that was here before
        except OSError as error:
            raise self._unusable() from error
        path = quote(str(self._directory / _name(segment.first_seq)))
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)
        index = SegmentIndex(segment, connection, self._clock)
        self._opened = (segment, index)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "locking_mode=EXCLUSIVE", "journal_mode=WAL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")
        if is_new:
            try:
                index.create()
            except sqlite3.DatabaseError as error:
                raise self._unusable() from error
        return index

    def _private_file(self, name: str) -> bool:
        """There is such a file of ours afterwards; whether it is new."""
        directory = private_directory(self._directory)
        try:
            descriptor = open_private(directory, name, os.O_RDWR | os.O_CREAT)
            try:
                os.fchmod(descriptor, 0o600)
                return os.fstat(descriptor).st_size == 0
            finally:
                os.close(descriptor)
        finally:
            os.close(directory)

    def _remove(self, first_seq: int) -> None:
        self._complete.discard(first_seq)
        self._remove_parts(first_seq, _PARTS)

    def _remove_parts(self, first_seq: int, parts: Sequence[str]) -> None:
        for part in parts:
            with contextlib.suppress(FileNotFoundError):
                (self._directory / f"{_name(first_seq)}{part}").unlink()

    def _unusable(self) -> Unusable:
        self.close()
        self._not_before = self._clock() + RETRY_SECONDS
        return Unusable()


def _name(first_seq: int) -> str:
    return f"{first_seq:020d}.sqlite"
