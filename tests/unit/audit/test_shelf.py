"""Indexes are made, gone on with and made anew; nothing that becomes of one is an error to whoever looks."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sandboxd.audit.history import opened
from sandboxd.audit.line import Link
from sandboxd.audit.search import Search
from sandboxd.audit.segment import Segment, segments
from sandboxd.audit.shelf import RETRY_SECONDS, Shelf, Unusable
from tests.unit.audit.looked_up import content, write
from tests.unit.audit.test_lookup import looking, seqs

RECORDS = [content(command=f"run {number}") for number in range(600)]
EVERY = list(range(1, 601))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    write(tmp_path / "journal", [RECORDS])
    return segments(tmp_path / "journal")[0]


@contextmanager
def shelf_of(tmp_path: Path, clock: Clock | None = None, least_free_bytes: int = 0) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "index", clock=clock or Clock(), least_free_bytes=least_free_bytes)
    try:
        yield shelf
    finally:
        shelf.close()


def indexed(shelf: Shelf, segment: Segment, until: float = 1e9) -> list[int] | None:
    """Everything the index knows of; None while it is not complete."""
    with opened(segment) as descriptor:
        index = shelf.complete(segment, descriptor, None, until)
        if index is None:
            return None
        return [place.seq for place in index.candidates(Search(), 0, 1000, newest_first=False)]


def test_an_index_goes_on_where_it_was_left(tmp_path: Path, segment: Segment) -> None:
    with shelf_of(tmp_path) as shelf:
        assert indexed(shelf, segment, until=0) is None
    with shelf_of(tmp_path) as shelf:
        assert indexed(shelf, segment) == EVERY
        assert shelf.rebuilt == 0
        assert shelf.knows(segment)


CRASH = """
import os, sys
from pathlib import Path
from sandboxd.audit import index
from sandboxd.audit.history import opened
from sandboxd.audit.segment import segments
from sandboxd.audit.shelf import Shelf
add, count = index.SegmentIndex._add, 0
def die(self, place, line):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os._exit(9)
    add(self, place, line)
index.SegmentIndex._add = die
state = Path(sys.argv[1])
(segment,) = segments(state / "journal")
with opened(segment) as descriptor:
    Shelf(state / "index", least_free_bytes=0).complete(segment, descriptor, None, 1e9)
"""


@pytest.mark.parametrize("at", [1, 100, 256, 257, 400])
def test_a_crash_in_the_middle_loses_no_record_and_doubles_none(tmp_path: Path, segment: Segment, at: int) -> None:
    died = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path), str(at)])
    assert died.returncode == 9
    with shelf_of(tmp_path) as shelf:
        assert indexed(shelf, segment) == EVERY
        assert shelf.rebuilt == 0


def damage_header(path: Path) -> None:
    path.write_bytes(b"no database at all" * 10)


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 64] = b"\xa5" * 64
    path.write_bytes(data)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:64] = b"\0\0\0\x63"  # user_version
    path.write_bytes(data)


ENDLESS = """
ALTER TABLE records RENAME TO others;
CREATE VIEW records AS WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x)
  SELECT n AS seq, 0 AS offset, 1 AS length, x'' AS digest, '' AS time, '' AS tenant, '' AS execution, '' AS sandbox,
    '' AS rule, 0 AS urgency, '' AS verdict FROM x;
"""
TRIGGER = "CREATE TRIGGER t BEFORE INSERT ON records BEGIN DELETE FROM records; END; DELETE FROM records WHERE seq > 20"
LAST = "(SELECT max(seq) FROM records)"


def edited(statements: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(statements)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        damage_header,
        damage_pages,
        cut,
        empty,
        of_another_version,
        edited(ENDLESS),
        edited(TRIGGER),
        edited("UPDATE records SET offset = NULL WHERE seq = " + LAST),
        edited("UPDATE records SET length = 'x' WHERE seq = " + LAST),
        edited("UPDATE records SET digest = x'' WHERE seq = 55"),
        edited("UPDATE records SET offset = -1 WHERE seq = 55"),
        edited("INSERT INTO records (seq, offset, length) VALUES (9223372036854775807, 0, 3)"),
    ],
)
def test_a_damaged_index_is_made_anew_and_the_answer_is_whole(tmp_path: Path, segment: Segment, damage: object) -> None:
    with looking(tmp_path) as lookup:
        assert seqs(lookup, Search(text="run 5")) == [6, *range(51, 61), *range(501, 601)]
    assert callable(damage)
    damage(tmp_path / "index" / f"{segment.first_seq:020d}.sqlite")
    with looking(tmp_path) as lookup:
        assert seqs(lookup, Search(text="run 5")) == [6, *range(51, 61), *range(501, 601)]


def test_the_index_of_a_tail_that_the_journal_lost_is_made_anew(tmp_path: Path, segment: Segment) -> None:
    with shelf_of(tmp_path) as shelf:
        indexed(shelf, segment)
    lines = segment.path.read_bytes().splitlines(keepends=True)
    segment.path.write_bytes(b"".join(lines[:500]))
    with shelf_of(tmp_path) as shelf:
        assert indexed(shelf, segment) == EVERY[:500]
        assert shelf.rebuilt == 1


def test_an_index_of_another_journal_is_made_anew(tmp_path: Path, segment: Segment) -> None:
    with shelf_of(tmp_path) as shelf:
        indexed(shelf, segment)
    segment.path.unlink()
    write(tmp_path / "journal", [[content(command="other")] * 700], Link(0, "f" * 64))
    with looking(tmp_path) as lookup:
        assert len(seqs(lookup, Search(text="other"))) == 700
        assert seqs(lookup, Search(text="run")) == []


def test_the_last_of_a_disk_is_left_to_the_journal(tmp_path: Path, segment: Segment) -> None:
    clock = Clock()
    with shelf_of(tmp_path, clock, least_free_bytes=1 << 60) as shelf, pytest.raises(Unusable):
        indexed(shelf, segment)
    with looking(tmp_path, indexed=False) as plain:
        assert seqs(plain, Search(text="run 599")) == [600]


def test_a_directory_that_cannot_be_had_is_tried_again_later_and_nothing_fails(
    tmp_path: Path, segment: Segment
) -> None:
    clock = Clock()
    (tmp_path / "index").write_text("in the way")
    with shelf_of(tmp_path, clock) as shelf:
        with pytest.raises(Unusable):
            indexed(shelf, segment)
        (tmp_path / "index").unlink()
        with pytest.raises(Unusable):
            indexed(shelf, segment)
        clock.now += RETRY_SECONDS
        assert indexed(shelf, segment) == EVERY


def test_a_link_in_place_of_an_index_is_not_followed(tmp_path: Path, segment: Segment) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "index").mkdir(mode=0o700)
    (tmp_path / "index" / f"{1:020d}.sqlite").symlink_to(victim)
    with looking(tmp_path) as lookup:
        assert seqs(lookup, Search(text="run 599")) == [600]
    assert victim.read_text() == "precious"


def test_an_index_open_to_others_is_closed_to_them(tmp_path: Path, segment: Segment) -> None:
    with shelf_of(tmp_path) as shelf:
        indexed(shelf, segment)
    (path,) = (tmp_path / "index").glob("*.sqlite")
    path.chmod(0o666)
    (tmp_path / "index").chmod(0o755)
    with shelf_of(tmp_path) as shelf:
        indexed(shelf, segment)
        assert {one.stat().st_mode & 0o077 for one in (path, path.parent, *path.parent.iterdir())} == {0}


def test_only_indexes_of_segments_that_are_gone_are_removed(tmp_path: Path, segment: Segment) -> None:
    with shelf_of(tmp_path) as shelf:
        indexed(shelf, segment)
        shutil.copy(tmp_path / "index" / f"{1:020d}.sqlite", tmp_path / "index" / f"{9:020d}.sqlite")
        (tmp_path / "index" / f"{9:020d}.sqlite-wal").touch()
        (tmp_path / "index" / "notes").touch()
        shelf.prune([segment])
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [f"{1:020d}.sqlite", "notes"]
