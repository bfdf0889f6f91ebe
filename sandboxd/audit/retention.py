"""Which of the oldest segments and packs of documents may go, and takes them away.

Never the newest segment, never what a required sink has not confirmed, never a journal that it cannot read. Called by
`audit.upkeep`, which puts it on record first.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxd.audit.line import written_ns
from sandboxd.audit.segment import lines, open_private, segments
from sandboxd.event import JournalTrimmed

Confirmed = Callable[[], int]  # every required sink has all records up to there, for good
BY_AGE, BY_BYTES = "age", "bytes"
# A document is stored just before the record that names it.
DOCUMENT_SLACK_NS = 60 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """A segment. `begun_ns` is when its first record was written, None if it has none yet."""

    name: str
    first_seq: int
    size_bytes: int
    begun_ns: int | None


@dataclass(frozen=True, slots=True)
class Pack:
    name: str
    size_bytes: int
    written_ns: int  # last


@dataclass(frozen=True, slots=True)
class Removal:
    """`first_seq` is the oldest record that stays."""

    segments: tuple[Held, ...]
    packs: tuple[Pack, ...]
    first_seq: int
    reason: str

    def event(self) -> JournalTrimmed:
        removed = _size(self.segments, self.packs)
        counts = (self.first_seq, len(self.segments), len(self.packs), removed, self.reason)
        return JournalTrimmed("", "", "", "", "", "", *counts)


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit. Bytes are those of segments and packs together."""

    seconds: float | None
    size_bytes: int | None


def removal(
    held: Sequence[Held], packs: Sequence[Pack], limits: Limits, now_ns: int, confirmed_seq: int
) -> Removal | None:
    """Of segments and packs, oldest first; None if all of them stay."""
    if not held:
        return None
    most = 0  # how many may go at all
    while most + 1 < len(held) and held[most + 1].first_seq - 1 <= confirmed_seq:
        most += 1
    count, reason = 0, BY_AGE
    if limits.seconds is not None:
        expired_ns = now_ns - int(limits.seconds * 1e9)
        while count < most and (ended := held[count + 1].begun_ns) is not None and ended <= expired_ns:
            count += 1
    if limits.size_bytes is not None:
        while count < most and _size(held[count:], _named_from(packs, held[count])) > limits.size_bytes:
            count, reason = count + 1, BY_BYTES
    staying = _named_from(packs, held[count])
    going = tuple(pack for pack in packs if pack not in staying)
    if not count and not going:
        return None
    return Removal(tuple(held[:count]), going, held[count].first_seq, reason)


def _named_from(packs: Sequence[Pack], oldest: Held) -> tuple[Pack, ...]:
    """Those that a record of this or a later segment may name."""
    if oldest.begun_ns is None:
        return tuple(packs)
    since_ns = oldest.begun_ns - DOCUMENT_SLACK_NS
    return tuple(pack for pack in packs if pack.written_ns >= since_ns)


def _size(held: Sequence[Held], packs: Sequence[Pack]) -> int:
    return sum(segment.size_bytes for segment in held) + sum(pack.size_bytes for pack in packs)


class Archive:
    """The files of one journal and its documents. Blocks; its methods may run in a thread, one at a time."""

    def __init__(self, journal: Path, documents: Path) -> None:
        self._journal = journal
        self._documents = documents
        self._begun: dict[str, int] = {}

    def removal(self, limits: Limits, now_ns: int, confirmed_seq: int, open_pack: str) -> Removal | None:
        """What may go. OSError if it cannot be seen, LineDamaged if a segment does not begin as it should."""
        held = self._held()
        self._begun = {name: begun for name, begun in self._begun.items() if any(name == one.name for one in held)}
        packs = [pack for pack in self._packs() if pack.name != open_pack]
        return removal(held, packs, limits, now_ns, confirmed_seq)

    def remove(self, going: Removal) -> None:
        """Oldest first, so that what stays is one piece at any moment. OSError if one cannot be taken away."""
        segments_and_packs = (
            (self._journal, [segment.name for segment in going.segments]),
            (self._documents, [pack.name for pack in going.packs]),
        )
        for directory, names in segments_and_packs:
            opened = _directory(directory)
            try:
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=opened)
            finally:
                os.close(opened)

    def _held(self) -> list[Held]:
        directory = _directory(self._journal)
        try:
            found = []
            for segment in segments(self._journal):
                name = segment.path.name
                descriptor = open_private(directory, name, os.O_RDONLY)
                try:
                    begun = self._begun.get(name) or _begun_ns(descriptor)
                    size = os.fstat(descriptor).st_size
                finally:
                    os.close(descriptor)
                if begun is not None:
                    self._begun[name] = begun
                found.append(Held(name, segment.first_seq, size, begun))
            return found
        finally:
            os.close(directory)

    def _packs(self) -> list[Pack]:
        directory = _directory(self._documents)
        try:
            names = sorted(path.name for path in self._documents.glob("*.pack"))
            status = [(name, os.stat(name, dir_fd=directory, follow_symlinks=False)) for name in names]
            return [Pack(name, seen.st_size, seen.st_mtime_ns) for name, seen in status]
        finally:
            os.close(directory)


def _begun_ns(descriptor: int) -> int | None:
    for _, line in lines(descriptor):
        return written_ns(line)
    return None


def _directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
