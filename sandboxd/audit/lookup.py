"""Finds records by their contents, a page at a time, through an index where there is one and line by line where not.

Either way it is the journal's own line that is judged and given back; one that is not as it was indexed, or no record
at all, is reported and never passed over. Blocks: called by `audit.reader` on a thread, and by `sandboxctl audit query
--journal`, which has no index.
"""

import contextlib
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from sandboxd.audit.history import BREATH_RECORDS, BREATH_SECONDS, Damage, Found, Gone, Place, opened, places, read
from sandboxd.audit.index import MAX_SEQ
from sandboxd.audit.journal import Position
from sandboxd.audit.search import Search, matches
from sandboxd.audit.segment import Segment, segments
from sandboxd.audit.shelf import Shelf, Unusable

PAGE_BYTES = 1 << 20
MAX_DAMAGES = 100
_BEHIND_ALL = 10**20  # a segment's name has 20 digits


@dataclass(frozen=True, slots=True)
class Query:
    """`after` is the `next` of the page before."""

    search: Search
    newest_first: bool = True
    size: int = 100
    after: int | None = None
    seconds: float = 1.0  # how long a page may take, about


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is None on the last one; a page that is not may have fewer records than asked for, or none."""

    found: tuple[Found, ...]
    damages: tuple[Damage, ...]
    next: int | None


class _NotYet(Exception):
    """The index is not complete, and the time is over."""


class Lookup:
    """Belongs to one thread from the first call on."""

    def __init__(self, journal: Path, shelf: Shelf | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._shelf = shelf
        self._clock = clock

    def page(self, query: Query, readable: Position | None = None) -> Page:
        """`readable` is how far the journal may be read; without one, to its end. OSError if it cannot be read."""
        until = self._clock() + query.seconds
        at = query.after if query.after is not None else (_BEHIND_ALL if query.newest_first else 0)
        found: list[Found] = []
        damages: list[Damage] = []
        size = 0
        try:
            for place, item in self._candidates(query, at, readable, until):
                if isinstance(item, Damage):
                    damages.append(item)
                elif matches(query.search, item.record):
                    found.append(item)
                    size += len(item.line)
                at = place.seq
                full = len(found) >= query.size or size >= PAGE_BYTES or len(damages) >= MAX_DAMAGES
                if full or self._clock() > until:
                    return Page(tuple(found), tuple(damages), at)
        except _NotYet:
            return Page(tuple(found), tuple(damages), at)
        return Page(tuple(found), tuple(damages), None)

    def advance(self, readable: Position) -> bool:
        """Index a little more of what is readable; whether there may be more to do."""
        if self._shelf is None:
            return False
        found = segments(self._journal)
        self._shelf.prune(found)
        for segment in found:
            if segment.first_seq > readable.segment:
                break
            if self._shelf.knows(segment):
                continue
            end = readable.offset if segment.first_seq == readable.segment else None
            try:
                with opened(segment) as descriptor:
                    if self._shelf.complete(segment, descriptor, end, 0.0) is None:
                        return True
            except Gone:
                continue
            except Unusable:
                return False
        return False

    def close(self) -> None:
        if self._shelf is not None:
            self._shelf.close()

    def _candidates(
        self, query: Query, at: int, readable: Position | None, until: float
    ) -> Iterator[tuple[Place, Found | Damage]]:
        """In the order asked for, from behind `at` on."""
        for segment, first, last in self._spans(query, at, readable):
            try:
                with opened(segment) as descriptor:
                    end = readable.offset if readable is not None and segment.first_seq == readable.segment else None
                    where = self._places(query, segment, descriptor, end, first, last, until)
                    for number, place in enumerate(where, 1):
                        if number % BREATH_RECORDS == 0:
                            time.sleep(BREATH_SECONDS)  # others of this process wait for the interpreter
                        yield place, read(segment, descriptor, place)
            except Gone:
                continue

    def _spans(self, query: Query, at: int, readable: Position | None) -> Iterator[tuple[Segment, int, int]]:
        """Each segment with the first and last sequence number to look at."""
        found = segments(self._journal)
        if readable is not None:
            found = [segment for segment in found if segment.first_seq <= readable.segment]
        spans = [
            (segment, segment.first_seq, following.first_seq - 1 if following is not None else _BEHIND_ALL)
            for segment, following in zip_longest(found, found[1:])
        ]
        for segment, first, last in reversed(spans) if query.newest_first else spans:
            first, last = (first, min(last, at - 1)) if query.newest_first else (max(first, at + 1), last)
            if first <= last:
                yield segment, first, last

    def _places(
        self, query: Query, segment: Segment, descriptor: int, end: int | None, first: int, last: int, until: float
    ) -> Iterator[Place]:
        """Where to look in a segment: what its index says, else every line."""
        newest_first = query.newest_first
        if self._shelf is not None:
            with contextlib.suppress(Unusable):
                try:
                    index = self._shelf.complete(segment, descriptor, end, until)
                    if index is None:
                        raise _NotYet
                    for place in index.candidates(query.search, first, min(last, MAX_SEQ), newest_first=newest_first):
                        yield place
                        first, last = (first, place.seq - 1) if newest_first else (place.seq + 1, last)
                    return
                except sqlite3.DatabaseError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:  # it took too long, as on a busy node
                        self._shelf.discard(error)
        where = places(segment, descriptor, end)
        yield from (
            _backwards(segment, where, first, last)
            if newest_first
            else (place for place in where if first <= place.seq <= last)
        )


def _backwards(segment: Segment, where: Iterator[Place], first: int, last: int) -> Iterator[Place]:
    """A segment may have millions of lines: of each only its beginning is kept."""
    begins = array("Q", [0])
    begins.extend(place.offset + place.length + 1 for place in where)
    for number in range(len(begins) - 2, -1, -1):
        if first <= segment.first_seq + number <= last:
            yield Place(segment.first_seq + number, begins[number], begins[number + 1] - begins[number] - 1)
