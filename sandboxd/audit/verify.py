"""Checks a whole journal: each line, the chain, the checkpoints and their signatures, and that nothing was cut off.

Reads it once, in constant memory, and changes nothing. Never follows a link, so that root may check what the daemon's
user owns, also while that writes, or a copy of the directory. Called by the command line and by the audit service.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sandboxd.audit import checkpoint
from sandboxd.audit.checkpoint import Checkpoint, ForeignKey
from sandboxd.audit.line import ORIGIN, LineDamaged, Link, decode, follow, is_canonical, parse
from sandboxd.audit.segment import LONGEST_LINE_BYTES, Segment, lines, open_private, segments
from sandboxd.event import JournalCheckpoint, JournalTrimmed

_ATTEMPTS = 5  # retention may take a segment just then


class Fault(StrEnum):
    """What is wrong with a record."""

    EDITED = "edited"
    MISSING = "missing"
    REORDERED = "reordered"  # or there twice
    TRUNCATED = "truncated"
    WRONG_KEY = "wrong_key"
    BAD_SIGNATURE = "bad_signature"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """The first record that is not as it was written. `line` counts from 1 within the segment.

    Where the file of the last checkpoint is what is wrong, it stands as `segment`.
    """

    segment: str
    line: int
    seq: int  # the sequence number that is due there
    fault: Fault
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """`sealed_seq` is the last record that a checkpoint covers, at `sealed_time`: who can write to the directory could
    have changed what is newer, or have put back an older state of all of it."""

    records: int  # good ones, before the first bad one
    first_bad: BadRecord | None
    torn_bytes: int  # of a last line without its end: a crash, or a record being written just now
    first_seq: int = 0
    last_seq: int = 0
    checkpoints: int = 0
    sealed_seq: int = 0
    sealed_time: str = ""
    key_id: str = ""  # of the last checkpoint

    @property
    def ok(self) -> bool:
        return self.first_bad is None


class Abandoned(Exception):
    """Whoever asked does not want to know any more."""


def _never() -> bool:
    return False


def verify(path: Path, public_key: Ed25519PublicKey | None, *, abandoned: Callable[[], bool] = _never) -> VerifyResult:
    """The journal in that directory, from its oldest segment on. OSError if it cannot be read.

    Without a key, signatures are not looked at: then whoever can write there can have written all of it.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _Verification(path, directory, public_key, abandoned).result()
        except FileNotFoundError:
            if attempt == _ATTEMPTS:
                raise
        finally:
            os.close(directory)
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class _Line:
    segment: Segment
    number: int
    data: bytes | None  # None: what is left of the segment has no end, or there is nothing in it


class _Bad(Exception):
    def __init__(self, seq: int, where: _Line, fault: Fault, reason: str) -> None:
        self.record = BadRecord(where.segment.path.name, where.number, seq, fault, reason)


class _Verification:
    """One reading of it all."""

    def __init__(
        self, path: Path, directory: int, public_key: Ed25519PublicKey | None, abandoned: Callable[[], bool]
    ) -> None:
        self._path = path
        self._directory = directory
        self._public_key = public_key
        self._abandoned = abandoned
        last = checkpoint.load(directory)  # before the segments, which may grow meanwhile
        self._last_line = None if last is None else last.removesuffix(b"\n")
        self._segments = segments(path)
        self._link = ORIGIN
        self._first_seq = 0
        self._where = _Line(Segment(path / checkpoint.LAST, 0), 0, None)  # the last good line
        self._kept_from = 1  # what retention said last, and a checkpoint sealed
        self._unsealed_kept_from = 1
        self._sealed: Checkpoint | None = None
        self._checkpoints = 0
        self._as_kept = False  # the last checkpoint's file has the line that the journal has
        self._torn_bytes = 0

    def result(self) -> VerifyResult:
        bad: BadRecord | None = None
        try:
            self._read()
            self._look_at_the_ends()
        except _Bad as found:
            bad = found.record
        good = self._link.seq if bad is None else min(self._link.seq, max(bad.seq - 1, 0))
        sealed = self._sealed
        return VerifyResult(
            records=good - self._first_seq + 1 if self._first_seq and good >= self._first_seq else 0,
            first_bad=bad,
            torn_bytes=self._torn_bytes if bad is None else 0,
            first_seq=self._first_seq,
            last_seq=good,
            checkpoints=self._checkpoints,
            sealed_seq=0 if sealed is None else min(sealed.sealed.seq, good),
            sealed_time="" if sealed is None else sealed.time,
            key_id="" if sealed is None else sealed.key_id,
        )

    def _read(self) -> None:
        found = self._walk()
        line = next(found, None)
        while line is not None:
            if self._abandoned():
                raise Abandoned
            following = next(found, None)
            try:
                self._judge(line, following)
            except _Misplaced as misplaced:
                raise self._classified(line, following, found, misplaced.seq) from None
            line = following

    def _walk(self) -> Iterator[_Line]:
        for segment in self._segments:
            newest = segment is self._segments[-1]
            descriptor = open_private(self._directory, segment.path.name, os.O_RDONLY)
            try:
                end = number = 0
                for offset, data in lines(descriptor):
                    end, number = offset + len(data) + 1, number + 1
                    yield _Line(segment, number, data)
                rest = os.fstat(descriptor).st_size - end
            finally:
                os.close(descriptor)
            if newest and rest < LONGEST_LINE_BYTES:
                self._torn_bytes = rest
            elif rest or not number:
                yield _Line(segment, number + 1, None)

    def _judge(self, line: _Line, following: _Line | None) -> None:
        due = self._link.seq + 1
        record = self._parsed(line, due)
        data = line.data or b""
        if not self._first_seq:
            self._begin(line, record)
            due = self._link.seq + 1
        if record["seq"] != due:
            raise _Misplaced(record["seq"])
        if record["prev"] != self._link.digest:
            raise self._blamed(line, following, due)
        if not is_canonical(record, data):
            raise _Bad(due, line, Fault.EDITED, "it is not canonical JSON")
        if line.number == 1 and line.segment.first_seq != due:
            raise _Bad(due, line, Fault.MALFORMED, "its segment has the name of another record")
        if record["rule"] == JournalCheckpoint.rule:
            self._check(line, due)
        elif line.number == 1:
            raise _Bad(due, line, Fault.MISSING, "the segment does not begin with a checkpoint")
        elif record["rule"] == JournalTrimmed.rule:
            self._note_retention(line, due)
        self._link = follow(self._link, data)
        self._where = line

    def _parsed(self, line: _Line, due: int) -> dict[str, object]:
        if line.data is None:
            raise _Bad(due, line, Fault.TRUNCATED, "the segment ends within a line, and it is not the newest")
        try:
            record = parse(line.data)
        except LineDamaged as error:
            raise _Bad(due, line, Fault.MALFORMED, str(error)) from error
        if type(record["seq"]) is not int:
            raise _Bad(due, line, Fault.MALFORMED, "its sequence number is no number")
        return record

    def _begin(self, line: _Line, record: dict[str, object]) -> None:
        """The oldest record there is: the first of all, or one whose checkpoint says what came before it."""
        self._first_seq = line.segment.first_seq
        if self._first_seq > 1:
            prev = record["prev"]
            self._link = Link(self._first_seq - 1, prev if isinstance(prev, str) else "")

    def _blamed(self, line: _Line, following: _Line | None, due: int) -> _Bad:
        """Of two neighbours that do not fit, the one that nothing vouches for."""
        if due > self._first_seq and (self._is_sealed(line) or _names(following, line)):
            return _Bad(due - 1, self._where, Fault.EDITED, "the record after it names another digest")
        return _Bad(due, line, Fault.EDITED, "it does not name the record before it")

    def _is_sealed(self, line: _Line) -> bool:
        """It is a checkpoint, and its signature holds."""
        if self._public_key is None:
            return False
        try:
            checkpoint.prove(checkpoint.read(decode(line.data or b"")), self._public_key)
        except (LineDamaged, ForeignKey, InvalidSignature):
            return False
        return True

    def _check(self, line: _Line, due: int) -> None:
        try:
            found = checkpoint.read(decode(line.data or b""))
        except LineDamaged as error:
            raise _Bad(due, line, Fault.EDITED, str(error)) from error
        self._prove(found, line)
        self._sealed = found
        self._kept_from = self._unsealed_kept_from
        self._checkpoints += 1
        self._as_kept = self._as_kept or line.data == self._last_line

    def _prove(self, found: Checkpoint, line: _Line) -> None:
        if self._public_key is None:
            return
        try:
            checkpoint.prove(found, self._public_key)
        except ForeignKey as error:
            reason = f"it is signed with the key {str(error)!r:.80}"
            raise _Bad(found.seq, line, Fault.WRONG_KEY, reason) from error
        except InvalidSignature as error:
            reason = "the signature is not of what stands here: it, or something since the checkpoint before, is forged"
            raise _Bad(found.seq, line, Fault.BAD_SIGNATURE, reason) from error

    def _note_retention(self, line: _Line, due: int) -> None:
        try:
            kept_from = dict(decode(line.data or b"").fields).get("first_seq")
        except LineDamaged as error:
            raise _Bad(due, line, Fault.MALFORMED, str(error)) from error
        if isinstance(kept_from, int):
            self._unsealed_kept_from = kept_from

    def _classified(self, line: _Line, following: _Line | None, rest: Iterator[_Line], seq: object) -> _Bad:
        """A line with another number than the one that is due."""
        due = self._link.seq + 1
        if parse(line.data or b"")["prev"] == self._link.digest:
            return _Bad(due, line, Fault.EDITED, f"its sequence number is {seq}, and it names the record before")
        if isinstance(seq, int) and seq < due:
            return _Bad(due, line, Fault.REORDERED, f"record {seq} stands here, again or too late")
        wanted = b'"seq":%d,"time":' % due
        for later in itertools.chain((following,) if following is not None else (), rest):
            if wanted in (later.data or b""):
                return _Bad(due, line, Fault.REORDERED, f"record {seq} stands here, and this one comes later")
        return _Bad(due, line, Fault.MISSING, f"record {seq} stands here, and this one is nowhere")

    def _look_at_the_ends(self) -> None:
        """What is there is good; whether it is all that was there."""
        self._look_at_the_start()
        last, end = self._segments[-1] if self._segments else None, self._link.seq
        if last is not None and last.first_seq > end + 1:
            raise _Bad(end + 1, _Line(last, 1, None), Fault.MISSING, "its segment is gone")
        kept = _Line(Segment(self._path / checkpoint.LAST, 0), 1, None)
        if self._last_line is None:
            if end:
                raise _Bad(end + 1, kept, Fault.MISSING, "the file with the last checkpoint is gone")
            return
        try:
            found = checkpoint.read(decode(self._last_line))
        except LineDamaged as error:
            raise _Bad(end + 1, kept, Fault.MALFORMED, str(error)) from error
        self._prove(found, kept)
        if found.seq > end:
            after = _Line(self._where.segment, self._where.number + 1, None)
            raise _Bad(end + 1, after, Fault.TRUNCATED, f"there was a checkpoint in record {found.seq}")
        if not self._as_kept:
            raise _Bad(found.seq, kept, Fault.EDITED, "the journal has another record in that place")

    def _look_at_the_start(self) -> None:
        if self._first_seq > self._kept_from:
            where = _Line(self._segments[0], 1, None)
            reason = f"the journal begins with record {self._first_seq}, and retention did not take what is before"
            raise _Bad(self._kept_from, where, Fault.MISSING, reason)


class _Misplaced(Exception):
    def __init__(self, seq: object) -> None:
        self.seq = seq


def _names(following: _Line | None, line: _Line) -> bool:
    """The next record has the digest of this one."""
    if following is None or following.data is None or line.data is None:
        return False
    try:
        return parse(following.data)["prev"] == follow(ORIGIN, line.data).digest
    except LineDamaged:
        return False
