"""An index of one segment of the journal, so that looking something up need not read it all. It answers nothing itself.

It only says where in the segment to look: what a line says and whether it is meant is decided on the line, so nobody
can invent an event by writing to an index. Whatever is looked for is a bound value, never part of a statement. Called
by `audit.shelf`, which keeps one for each segment, on one thread.
"""

import contextlib
import hashlib
import heapq
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice

from sandboxd.audit.history import MOVED, Damage, Place, judge, read
from sandboxd.audit.search import Search, folded, is_digest, is_part_of_digest, urgency, values, verdict
from sandboxd.audit.segment import Segment, lines
from sandboxd.sink.base import Record

BATCH_RECORDS = 256
HARD_SECONDS = 5.0  # for one statement, which takes some hundredths of a second
VERSION = 2
MAX_SEQ = 1 << 62  # SQLite counts to twice that; nor is an offset ever more
_TRIGRAM_CHARS = 3
_DIGEST_CHARS, _BEGINNING_CHARS, _DIGEST_BYTES = 64, 8, 32
_MAX_TRIGRAMS = 24  # of a text that is looked for: enough to find few candidates
_STEPS = 100_000  # of SQLite's machine between looks at the clock
_SCHEMA = """
CREATE TABLE records (
  seq INTEGER PRIMARY KEY, offset INTEGER, length INTEGER, digest BLOB, time TEXT, tenant TEXT, execution TEXT,
  sandbox TEXT, rule TEXT, urgency INTEGER, verdict TEXT);
CREATE INDEX executions ON records (execution);
CREATE VIRTUAL TABLE texts USING fts5(
  text, content='', detail=none, columnsize=0, tokenize='trigram case_sensitive 1');
CREATE TABLE damaged (seq INTEGER PRIMARY KEY, offset INTEGER, length INTEGER, digest BLOB);
"""
_LAST = """
SELECT seq, offset, length, digest FROM (SELECT * FROM (
    SELECT seq, offset, length, digest FROM records ORDER BY seq DESC LIMIT 1)
  UNION ALL SELECT * FROM (SELECT seq, offset, length, digest FROM damaged ORDER BY seq DESC LIMIT 1))
ORDER BY seq DESC LIMIT 1
"""


class SegmentIndex:
    """sqlite3.DatabaseError out of any method: the file is damaged, or the disk is full."""

    def __init__(
        self, segment: Segment, connection: sqlite3.Connection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`connection` is in autocommit mode."""
        self._segment = segment
        self._connection = connection
        self._clock = clock

    def create(self) -> None:
        self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")

    def close(self) -> None:
        self._connection.close()

    def is_of(self, descriptor: int) -> bool:
        """Was it made by this version, and of that segment? After a power cut a journal may have lost its tail."""
        if self._connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
            return False
        if _made(self._connection) != _expected():
            return False  # a view or a trigger of somebody else's could run without end
        last = self._last()
        if last is None:
            return True
        found = read(self._segment, descriptor, last)
        return not isinstance(found, Damage) or found.reason != MOVED

    def _last(self) -> Place | None:
        row = self._connection.execute(_LAST).fetchone()
        return None if row is None else _place(row)

    def fill(self, descriptor: int, end: int | None) -> int:
        """Index the next few lines before `end`, all or none of them; how many there were."""
        last = self._last()
        seq, offset = (self._segment.first_seq, 0) if last is None else (last.seq + 1, last.offset + last.length + 1)
        batch = list(islice(lines(descriptor, offset, end), BATCH_RECORDS))
        if not batch:
            return 0
        self._connection.execute("BEGIN")
        try:
            for number, (at, line) in enumerate(batch, seq):
                self._add(Place(number, at, len(line)), line)
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.execute("COMMIT")
        return len(batch)

    def _add(self, place: Place, line: bytes) -> None:
        """Each statement lets other threads of the process run meanwhile."""
        found = judge(self._segment, place, line)
        if isinstance(found, Damage):
            where = (place.seq, place.offset, place.length, hashlib.sha256(line).digest())
            self._connection.execute("INSERT INTO damaged VALUES (?, ?, ?, ?)", where)
            return
        record = found.record
        ids = dict(record.ids)
        names = ("tenant", "execution_id", "sandbox_id")
        texts = (*(ids.get(name, "") for name in names), record.rule, verdict(record))
        tenant, execution, sandbox, rule, decided = map(_storable, texts)
        self._connection.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                place.seq, place.offset, place.length, bytes.fromhex(record.digest), record.time, tenant, execution,
                sandbox, rule, urgency(record.priority), decided,
            ),
        )  # fmt: skip
        self._connection.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (place.seq, _text(record)))

    def finish(self) -> None:
        """The segment is complete: what is not needed any more goes."""
        self._connection.execute("INSERT INTO texts (texts) VALUES ('optimize')")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def candidates(self, search: Search, first: int, last: int, *, newest_first: bool) -> Iterator[Place]:
        """Where to look between those sequence numbers: every record that is meant, and each damaged line."""
        until = self._clock() + HARD_SECONDS
        self._connection.set_progress_handler(lambda: self._clock() > until, _STEPS)
        order = "DESC" if newest_first else "ASC"
        damaged = "SELECT seq, offset, length, digest FROM damaged WHERE seq BETWEEN ? AND ? ORDER BY seq " + order
        conditions, bound = _conditions(search)
        words = _words(search.text)
        source, seq = ("texts CROSS JOIN records ON records.seq = texts.rowid", "texts.rowid") if words else (
            "records", "records.seq",
        )  # fmt: skip
        if words:
            conditions.append("texts MATCH ?")
            bound.append(words)
        conditions.append(f"{seq} BETWEEN ? AND ?")
        statement = (
            f"SELECT records.seq, offset, length, digest FROM {source} "
            f"WHERE {' AND '.join(conditions)} ORDER BY {seq} {order}"
        )
        try:
            both = heapq.merge(
                self._connection.execute(statement, (*bound, first, last)),
                self._connection.execute(damaged, (first, last)),
                key=lambda row: -row[0] if newest_first else row[0],
            )
            with contextlib.closing(both) as rows:  # before the connection is
                for row in rows:
                    yield _place(row)
        finally:
            self._connection.set_progress_handler(None, 0)


def _made(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


@lru_cache(maxsize=1)
def _expected() -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _made(connection)


def _place(row: tuple[object, ...]) -> Place:
    """DatabaseError for one that we never wrote: SQLite keeps in a column whatever it is given."""
    match row:
        case (int(seq), int(offset), int(length), bytes(digest)) if (
            0 < seq <= MAX_SEQ and 0 <= offset <= MAX_SEQ and 0 <= length <= MAX_SEQ and len(digest) == _DIGEST_BYTES
        ):
            return Place(seq, offset, length, digest)
        case _:
            error = sqlite3.DatabaseError("a row that nobody indexed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error


def _conditions(search: Search) -> tuple[list[str], list[str | int]]:
    """Without the text: that needs more than a comparison."""
    rule, beginning = search.rule.removesuffix("*"), search.rule.endswith("*")
    wanted: tuple[tuple[str, str | int, bool], ...] = (
        ("time >= ?", search.since, bool(search.since)),
        ("time < ?", search.until, bool(search.until)),
        ("tenant = ?", search.tenant, bool(search.tenant)),
        ("execution = ?", search.execution_id, bool(search.execution_id)),
        ("sandbox = ?", search.sandbox_id, bool(search.sandbox_id)),
        ("instr(rule, ?) = 1", rule, beginning and bool(rule)),
        ("rule = ?", rule, not beginning and bool(rule)),
        ("verdict = ?", search.verdict, bool(search.verdict)),
        ("urgency <= ?", urgency(search.minimum_priority), bool(search.minimum_priority)),
    )
    asked = [(condition, value) for condition, value, is_asked in wanted if is_asked]
    bound = [_storable(value) if isinstance(value, str) else value for _, value in asked]
    return [condition for condition, _ in asked], bound


def _text(record: Record) -> str:
    """Of a digest its beginning alone, by which a whole one is found; of an id nothing."""
    return "\n".join(map(_indexed, values(record)))


def _indexed(value: str) -> str:
    if is_digest(value):
        return value[:_BEGINNING_CHARS] if len(value) == _DIGEST_CHARS else ""
    return _searchable(value)


def _words(text: str) -> str:
    """The text as a question to the index: some of its trigrams. Empty where the index cannot help.

    That is for what is shorter, and for what may be a part of an id or digest, which are not indexed.
    """
    wanted = _searchable(folded(text))
    if is_digest(wanted) and len(wanted) == _DIGEST_CHARS:
        wanted = wanted[:_BEGINNING_CHARS]
    elif len(wanted) < _TRIGRAM_CHARS or is_part_of_digest(wanted):
        return ""
    found = {wanted[at : at + _TRIGRAM_CHARS] for at in range(len(wanted) - _TRIGRAM_CHARS + 1)}
    chosen = sorted(found)[:: max(1, len(found) // _MAX_TRIGRAMS)]
    return " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in chosen)


def _searchable(text: str) -> str:
    """SQLite takes a NUL for the end."""
    return text.replace("\0", "\ufffd")


def _storable(text: str) -> str:
    """Of the characters that UTF-8 has."""
    return text.encode("utf-8", "backslashreplace").decode()
