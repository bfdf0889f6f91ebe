"""Looking things up: with an index, without one and by hand the answer is the same, and damage is never passed over."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.audit import index as index_module
from sandboxd.audit.history import MOVED, Damage
from sandboxd.audit.journal import Position
from sandboxd.audit.line import Link, decode, timestamp
from sandboxd.audit.lookup import MAX_DAMAGES, PAGE_BYTES, Lookup, Page, Query
from sandboxd.audit.search import PRIORITIES, Search, matches
from sandboxd.audit.segment import segments
from sandboxd.audit.shelf import Shelf
from tests.unit.audit.looked_up import SECOND_NS, START_NS, Content, content, rewritten, write

FOREVER = 1e9
WORDS = (
    "deny",
    "allow",
    "%",
    "_",
    '"',
    "*",
    "curl HTTP",
    "ẞtraße",
    "\0",
    "\ud800",
    "ab",
    "c",
    "0" * 32,
    "f00d" * 16,
    "",
)
WORD = st.one_of(st.sampled_from(WORDS), st.text(max_size=5))
TEXT = st.lists(WORD, max_size=4).map("".join)
RULES = ("policy.decided", "policy.reloaded", "process.exec_decided", "a\0b.c", "policy\U0010ffff.x")
RECORDS = st.builds(
    content,
    st.sampled_from(RULES),
    st.sampled_from([*PRIORITIES, "odd"]),
    tenant=WORD,
    execution_id=st.sampled_from(("e1", "e2", "\ud800", "")),
    sandbox_id=WORD,
    verdict=WORD,
    command=TEXT,
    labels=st.lists(st.tuples(TEXT, st.integers(0, 99)), max_size=2),
)
SEARCHABLE = st.one_of(st.just(""), WORD).map(lambda text: text.encode("utf-8", "replace").decode())
SEARCHES = st.builds(
    Search,
    since=st.sampled_from(["", *(timestamp(START_NS + n * SECOND_NS) for n in range(4))]),
    until=st.sampled_from(["", *(timestamp(START_NS + n * SECOND_NS) for n in range(2, 9))]),
    tenant=SEARCHABLE,
    execution_id=st.sampled_from(("", "", "e1", "\ud800")),
    sandbox_id=st.one_of(st.just(""), SEARCHABLE),
    rule=st.sampled_from(("", "", "*", "policy.*", "policy*", "policy.decided", "a\0*", "policy\U0010ffff*")),
    verdict=st.one_of(st.just(""), SEARCHABLE),
    minimum_priority=st.sampled_from(("", "", *PRIORITIES)),
    text=st.one_of(st.just(""), TEXT),
)
JOURNALS = st.lists(st.lists(RECORDS, max_size=5), min_size=1, max_size=3)


@contextmanager
def looking(state: Path, *, indexed: bool = True) -> Iterator[Lookup]:
    lookup = Lookup(state / "journal", Shelf(state / "index", least_free_bytes=0) if indexed else None)
    try:
        yield lookup
    finally:
        lookup.close()


def pages(lookup: Lookup, query: Query, readable: Position | None = None) -> Iterator[Page]:
    while True:
        page = lookup.page(query, readable)
        yield page
        if page.next is None:
            return
        query = replace(query, after=page.next)


def seqs(lookup: Lookup, search: Search, *, newest_first: bool = False, size: int = 100) -> list[int]:
    query = Query(search, newest_first=newest_first, size=size, seconds=FOREVER)
    return [found.record.seq for page in pages(lookup, query) for found in page.found]


def damages(lookup: Lookup, search: Search | None = None) -> list[Damage]:
    query = Query(search or Search(), newest_first=False, seconds=FOREVER)
    return [damage for page in pages(lookup, query) for damage in page.damages]


def by_hand(state: Path, search: Search) -> list[int]:
    lines = (line for path in sorted((state / "journal").iterdir()) for line in path.read_bytes().splitlines())
    return [record.seq for record in map(decode, lines) if matches(search, record)]


@settings(max_examples=40, deadline=None)
@given(journal=JOURNALS, searches=st.lists(SEARCHES, min_size=1, max_size=6), size=st.integers(1, 4))
def test_an_index_changes_no_answer(journal: list[list[Content]], searches: list[Search], size: int) -> None:
    with TemporaryDirectory() as name:
        state = Path(name)
        write(state / "journal", journal)
        with looking(state) as lookup, looking(state, indexed=False) as plain:
            for search in searches:
                expected = by_hand(state, search)
                assert seqs(lookup, search, size=size) == expected
                assert seqs(lookup, search, size=size, newest_first=True) == expected[::-1]
                assert seqs(plain, search, size=size) == expected
                assert seqs(plain, search, size=size, newest_first=True) == expected[::-1]


def forty(state: Path) -> None:
    records = [
        content(verdict="deny" if number % 10 == 0 else "allow", command=f"run {number}") for number in range(40)
    ]
    write(state / "journal", [records[:15], records[15:30], records[30:]])


def test_pages_stay_right_while_records_are_added(tmp_path: Path) -> None:
    forty(tmp_path)
    with looking(tmp_path) as lookup:
        query = Query(Search(verdict="deny"), size=3)
        first = lookup.page(query)
        assert [found.record.seq for found in first.found] == [31, 21, 11]
        write(tmp_path / "journal", [[content(verdict="deny")]], Link(40, "0" * 64))
        second = lookup.page(replace(query, after=first.next))
        assert ([found.record.seq for found in second.found], second.next) == ([1], None)


def test_what_is_not_readable_yet_is_not_found(tmp_path: Path) -> None:
    forty(tmp_path)
    last = segments(tmp_path / "journal")[-1]
    begin = last.path.read_bytes().index(b"\n") + 1
    readable = Position(last.first_seq, begin, Link(31, "0" * 64))
    for indexed in (True, False):
        with looking(tmp_path, indexed=indexed) as lookup:
            page = lookup.page(Query(Search(), size=1), readable)
            assert page.found[0].record.seq == 31


def test_the_answer_is_the_journals_line_and_an_edited_one_is_reported(tmp_path: Path) -> None:
    forty(tmp_path)
    with looking(tmp_path) as lookup:
        assert seqs(lookup, Search(text="run 12")) == [13]
        first = segments(tmp_path / "journal")[0]
        rewritten(first.path, 12, node="evil")
        (damage,) = damages(lookup, Search(text="run 12"))
        assert (damage.seq, damage.segment, damage.reason) == (13, first.path.name, MOVED)
        assert seqs(lookup, Search(text="run 12")) == []


def test_an_edited_index_invents_nothing(tmp_path: Path) -> None:
    forty(tmp_path)
    with looking(tmp_path) as lookup:
        assert len(seqs(lookup, Search())) == 40
    for path in (tmp_path / "index").glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as index, index:
            index.execute("UPDATE records SET verdict = 'deny', tenant = 'victim', offset = offset + seq % 2")
    with looking(tmp_path) as lookup:
        assert seqs(lookup, Search(tenant="victim")) == []
        assert {damage.reason for damage in damages(lookup, Search(tenant="victim"))} == {MOVED}


@pytest.mark.parametrize("indexed", [True, False])
def test_every_damaged_line_is_reported_whatever_is_looked_for(tmp_path: Path, indexed: bool) -> None:
    good = content(verdict="deny")
    bad = [b"", b"no json", b"\xff\xfe", b"{}", b"[" * 9999, b'{"seq": 1}']
    write(tmp_path / "journal", [[good, *bad, good], [good]])
    with looking(tmp_path, indexed=indexed) as lookup:
        for search in (Search(), Search(tenant="nobody"), Search(text="no such text"), Search(execution_id="x")):
            assert [damage.seq for damage in damages(lookup, search)] == [2, 3, 4, 5, 6, 7]
        assert seqs(lookup, Search(verdict="deny")) == [1, 8, 9]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_record_out_of_its_place_or_of_no_time_is_damage(tmp_path: Path, indexed: bool) -> None:
    forty(tmp_path)
    first, second, _ = segments(tmp_path / "journal")
    lines = first.path.read_bytes().splitlines(keepends=True)
    first.path.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    rewritten(second.path, 0, time="x" * 30)
    with looking(tmp_path, indexed=indexed) as lookup:
        told = [(damage.seq, damage.reason) for damage in damages(lookup)]
    assert told == [(1, "it is record 2"), (2, "it is record 1"), (16, "its time is no time")]


def test_a_page_is_bounded_in_records_bytes_and_damages(tmp_path: Path) -> None:
    large = content(command="x" * 300_000)
    write(tmp_path / "journal", [[large] * 8, [b"bad"] * (MAX_DAMAGES + 5)])
    with looking(tmp_path) as lookup:
        first = lookup.page(Query(Search(), newest_first=False, size=1000, seconds=FOREVER))
        assert sum(len(found.line) for found in first.found) < PAGE_BYTES + 400_000 and first.next is not None
        newest = lookup.page(Query(Search(), size=1000, seconds=FOREVER))
        assert (len(newest.damages), newest.found, newest.next is not None) == (MAX_DAMAGES, (), True)


def test_a_page_ends_when_its_time_does_and_the_next_goes_on(tmp_path: Path) -> None:
    forty(tmp_path)
    for newest_first in (True, False):
        ticks = iter(range(10_000))
        lookup = Lookup(tmp_path / "journal", None, clock=lambda ticks=ticks: float(next(ticks)))  # type: ignore[misc]
        query = Query(Search(verdict="deny"), newest_first=newest_first, seconds=7)
        told = list(pages(lookup, query))
        assert len(told) > 3 and any(not page.found for page in told)
        found = [record.record.seq for page in told for record in page.found]
        assert found == ([31, 21, 11, 1] if newest_first else [1, 11, 21, 31])


def test_an_index_that_is_not_complete_in_time_goes_on_with_the_next_page(tmp_path: Path) -> None:
    write(tmp_path / "journal", [[content(command=str(number)) for number in range(600)]])
    with looking(tmp_path) as lookup:
        told = list(pages(lookup, Query(Search(text="599"), seconds=0)))
        assert len(told) > 1 and (told[0].found, told[0].next is not None) == ((), True)
        assert [found.record.seq for page in told for found in page.found] == [600]


def test_a_little_is_indexed_at_a_time_until_all_is(tmp_path: Path) -> None:
    write(tmp_path / "journal", [[content()] * 300, [content()] * 300])
    last = segments(tmp_path / "journal")[-1]
    readable = Position(last.first_seq, last.path.stat().st_size, Link(600, "0" * 64))
    with looking(tmp_path) as lookup:
        steps = 1
        while lookup.advance(readable):
            steps += 1
        assert steps > 3
        assert not lookup.advance(readable)
    indexed = sorted(path.name for path in (tmp_path / "index").glob("*.sqlite"))
    assert indexed == [f"{1:020d}.sqlite", f"{301:020d}.sqlite"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "index").iterdir())
    assert stat.S_IMODE((tmp_path / "index").stat().st_mode) == 0o700


def test_a_segment_that_retention_took_goes_with_its_index_and_nothing_fails(tmp_path: Path) -> None:
    forty(tmp_path)
    with looking(tmp_path) as lookup:
        assert len(seqs(lookup, Search())) == 40
        segments(tmp_path / "journal")[0].path.unlink()
        assert seqs(lookup, Search())[0] == 16
        lookup.advance(Position(31, 0, Link(30, "0" * 64)))
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [f"{16:020d}.sqlite", f"{31:020d}.sqlite"]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_link_or_pipe_for_a_segment_is_an_error_and_not_followed(tmp_path: Path, indexed: bool) -> None:
    forty(tmp_path)
    first = segments(tmp_path / "journal")[0].path
    first.unlink()
    first.symlink_to(tmp_path / "elsewhere")
    with looking(tmp_path, indexed=indexed) as lookup, pytest.raises(OSError, match="symbolic links"):
        seqs(lookup, Search())
    first.unlink()
    os.mkfifo(first)
    with looking(tmp_path, indexed=indexed) as lookup, pytest.raises(PermissionError, match="not a regular file"):
        seqs(lookup, Search())


def test_a_segment_whose_number_no_index_can_hold_is_looked_through(tmp_path: Path) -> None:
    write(tmp_path / "journal", [[content(command="here")]], Link(10**19, "0" * 64))
    with looking(tmp_path) as lookup:
        assert seqs(lookup, Search(text="here")) == [10**19 + 1]


def test_a_statement_that_takes_too_long_costs_the_index_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forty(tmp_path)
    shelf = Shelf(tmp_path / "index", least_free_bytes=0)
    lookup = Lookup(tmp_path / "journal", shelf)
    assert len(seqs(lookup, Search(verdict="deny"))) == 4
    monkeypatch.setattr(index_module, "HARD_SECONDS", -1.0)
    monkeypatch.setattr(index_module, "_STEPS", 1)
    for newest_first in (True, False):
        found = seqs(lookup, Search(verdict="deny"), newest_first=newest_first)
        assert sorted(found) == [1, 11, 21, 31]
    assert shelf.rebuilt == 0
    lookup.close()
