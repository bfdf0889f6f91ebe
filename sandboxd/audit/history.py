"""Reads the journal for whoever looks back: places, lines, and the records they hold. Never writes or follows a link.

Safe for root to call on what the daemon's user owns, and while that writes. A line that is no record of ours is never
passed over: it comes out as `Damage`. Called by `audit.lookup`, `audit.tail`, `audit.index` and by
`sandboxctl policy replay`.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxd.audit.line import LineDamaged, decode
from sandboxd.audit.search import Search, matches
from sandboxd.audit.segment import Segment, lines, open_private, segments
from sandboxd.sink.base import Record

MAX_LINE_BYTES = 4 << 20  # an event of ours has less than 1 MiB in its worst case
BREATH_RECORDS, BREATH_SECONDS = 32, 0.00001  # who reads in the daemon lets its other threads run so often
MOVED = "the line is not the one that was indexed"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Damage:
    """A place that does not hold the record that is due there. `seq` is 0 where that cannot be told."""

    seq: int
    segment: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """Of a line in a segment: the sequence number that is due there, and what its digest was when it was indexed."""

    seq: int
    offset: int
    length: int
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Found:
    """A record with its line as it stands in the journal, without the newline."""

    record: Record
    line: bytes


class Gone(Exception):
    """A segment that retention took meanwhile."""


@contextlib.contextmanager
def opened(segment: Segment) -> Iterator[int]:
    """`Gone`; OSError for what is no file of a journal, such as a link."""
    directory = os.open(segment.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = open_private(directory, segment.path.name, os.O_RDONLY)
    except FileNotFoundError as error:
        raise Gone from error
    finally:
        os.close(directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def places(segment: Segment, descriptor: int, end: int | None = None) -> Iterator[Place]:
    """Of each whole line, before `end`."""
    for number, (offset, line) in enumerate(lines(descriptor, 0, end)):
        yield Place(segment.first_seq + number, offset, len(line))


def read(segment: Segment, descriptor: int, place: Place) -> Found | Damage:
    return judge(segment, place, os.pread(descriptor, min(place.length, MAX_LINE_BYTES), place.offset))


def judge(segment: Segment, place: Place, line: bytes) -> Found | Damage:
    """The record of that line, if it is the one that is due there."""
    problem = ""
    if place.length > MAX_LINE_BYTES:
        problem = f"the line has {place.length} bytes, more than any record"
    elif len(line) != place.length or (place.digest and hashlib.sha256(line).digest() != place.digest):
        problem = MOVED
    else:
        try:
            record = decode(line)
        except LineDamaged as error:
            problem = str(error)
        else:
            if record.seq == place.seq and _TIME.fullmatch(record.time):
                return Found(record, line)
            problem = "its time is no time" if record.seq == place.seq else f"it is record {record.seq}"
    return Damage(place.seq, segment.path.name, place.offset, problem)


def scan(journal: Path, search: Search) -> Iterator[Found | Damage]:
    """What is found, and each damaged line, oldest first. OSError if the journal cannot be read."""
    for segment in segments(journal):
        with contextlib.suppress(Gone), opened(segment) as descriptor:
            for number, (offset, line) in enumerate(lines(descriptor)):
                found = judge(segment, Place(segment.first_seq + number, offset, len(line)), line)
                if isinstance(found, Damage) or matches(search, found.record):
                    yield found
