"""Follows the journal for one reader, from any record on: what is there, then what comes, as fast as it is taken.

Keeps a place in the journal and no queue, so a reader that is slow or gone costs nothing. What is not there any more
when it comes to it is counted, and a damaged line told. Blocks; called by `audit.reader` on a thread.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from sandboxd.audit.history import BREATH_RECORDS, BREATH_SECONDS, Damage, Found, Gone, Place, judge, opened
from sandboxd.audit.journal import Position
from sandboxd.audit.search import Search, matches
from sandboxd.audit.segment import Segment, lines, segments

SLICE_LINES = 1024
SLICE_ITEMS = 256
SLICE_BYTES = 1 << 20  # of lines that are meant, with the one that passes it


@dataclass(frozen=True, slots=True)
class Slice:
    """Everything before `next_seq` has been looked at. `missing` records before these are not in the journal any more.

    `caught_up`: that was all there is, for now.
    """

    found: tuple[Found, ...]
    damages: tuple[Damage, ...]
    next_seq: int
    missing: int
    caught_up: bool


class Tail:
    """One reader's place: before record `next_seq`. Used on one thread at a time."""

    def __init__(self, journal: Path, search: Search, next_seq: int) -> None:
        self._journal = journal
        self._search = search
        self._next_seq = next_seq
        self._segment: Segment | None = None  # the last one we were in
        self._exhausted = False
        self._line = Place(0, 0, 0)  # where we are in it, and the number that is due there
        self._missing = 0

    def read(self, readable: Position) -> Slice:
        """The next lines that are readable, in one go. OSError if the journal cannot be read."""
        found: list[Found] = []
        damages: list[Damage] = []
        while self._next_seq <= readable.link.seq:
            segment = self._entered(readable)
            if segment is None:
                self._skip_to(readable.link.seq + 1)
                break
            try:
                if self._read(segment, readable, found, damages):
                    break
            except Gone:
                pass  # retention was faster
            self._exhausted = True
        missing, self._missing = self._missing, 0
        return Slice(tuple(found), tuple(damages), self._next_seq, missing, self._next_seq > readable.link.seq)

    def _entered(self, readable: Position) -> Segment | None:
        """The segment that we are in, else the one to go on with; None if there is none."""
        before = self._segment
        if before is not None and not self._exhausted:
            return before
        there = [segment for segment in segments(self._journal) if segment.first_seq <= readable.segment]
        if before is None:
            holding = [segment for segment in there if segment.first_seq <= self._next_seq]
            there = holding[-1:] or there
        else:
            there = [segment for segment in there if segment.first_seq > before.first_seq]
        if not there:
            return None
        self._segment, self._exhausted = there[0], False
        self._line = Place(there[0].first_seq, 0, 0)
        if before is not None:
            self._next_seq = min(self._next_seq, there[0].first_seq)
        self._skip_to(there[0].first_seq)
        return there[0]

    def _skip_to(self, seq: int) -> None:
        if seq > self._next_seq:
            self._missing += seq - self._next_seq
            self._next_seq = seq

    def _read(self, segment: Segment, readable: Position, found: list[Found], damages: list[Damage]) -> bool:
        """Whether there was a line to look at."""
        end = readable.offset if segment.first_seq == readable.segment else None
        looked_at = size = 0
        with opened(segment) as descriptor:
            for offset, line in lines(descriptor, self._line.offset, end):
                place = Place(self._line.seq, offset, len(line))
                self._line = Place(place.seq + 1, offset + len(line) + 1, 0)
                if place.seq < self._next_seq:
                    continue
                self._next_seq = place.seq + 1
                item = judge(segment, place, line)
                if isinstance(item, Damage):
                    damages.append(item)
                elif matches(self._search, item.record):
                    found.append(item)
                    size += len(line)
                looked_at += 1
                if looked_at == SLICE_LINES or len(found) + len(damages) == SLICE_ITEMS or size >= SLICE_BYTES:
                    break
                if looked_at % BREATH_RECORDS == 0:
                    time.sleep(BREATH_SECONDS)  # others of this process wait for the interpreter
        return looked_at > 0
