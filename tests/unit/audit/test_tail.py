from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.audit.journal import Position
from sandboxd.audit.line import ORIGIN, Link
from sandboxd.audit.search import Search
from sandboxd.audit.segment import segments
from sandboxd.audit.tail import SLICE_BYTES, SLICE_ITEMS, SLICE_LINES, Slice, Tail
from tests.unit.audit.looked_up import content, rewritten, write

RECORDS = [content(verdict="deny" if number % 10 == 0 else "allow") for number in range(40)]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    write(tmp_path / "journal", [RECORDS[:15], RECORDS[15:30], RECORDS[30:]])
    return tmp_path / "journal"


def end_of(journal: Path, seq: int = 40) -> Position:
    last = segments(journal)[-1]
    return Position(last.first_seq, last.path.stat().st_size, Link(seq, "0" * 64))


def slices(tail: Tail, readable: Position) -> list[Slice]:
    told = [tail.read(readable)]
    while not told[-1].caught_up:
        told.append(tail.read(readable))
    return told


def seqs(told: list[Slice]) -> list[int]:
    return [found.record.seq for one in told for found in one.found]


def missing(told: list[Slice]) -> int:
    return sum(one.missing for one in told)


@pytest.mark.parametrize("first", [1, 2, 15, 16, 17, 30, 31, 40])
def test_everything_from_any_record_on_comes_in_order(journal: Path, first: int) -> None:
    told = slices(Tail(journal, Search(), first), end_of(journal))
    assert (seqs(told), missing(told), told[-1].next_seq) == (list(range(first, 41)), 0, 41)


def test_a_filter_leaves_out_and_the_place_moves_on(journal: Path) -> None:
    told = slices(Tail(journal, Search(verdict="deny"), 5), end_of(journal))
    assert (seqs(told), told[-1].next_seq) == ([11, 21, 31], 41)


def test_what_is_new_comes_and_what_is_not_readable_yet_does_not(journal: Path) -> None:
    tail = Tail(journal, Search(), 39)
    readable = end_of(journal)
    assert seqs(slices(tail, readable)) == [39, 40]
    assert slices(tail, readable) == [Slice((), (), 41, 0, caught_up=True)]
    extra = journal.with_name("extra")
    write(extra, [[content()] * 2], Link(40, "0" * 64))
    (new,) = segments(extra)
    line = new.path.read_bytes().splitlines(keepends=True)[0]
    with segments(journal)[-1].path.open("ab") as file:
        file.write(new.path.read_bytes())
    assert seqs(slices(tail, readable)) == []
    readable = replace(readable, offset=readable.offset + len(line), link=Link(41, "0" * 64))
    assert seqs(slices(tail, readable)) == [41]
    assert seqs(slices(tail, end_of(journal, 42))) == [42]


def test_a_tail_goes_over_into_segments_that_are_begun_later(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    link = write(journal, [RECORDS[:3]])
    tail = Tail(journal, Search(), 1)
    assert seqs(slices(tail, end_of(journal, 3))) == [1, 2, 3]
    for _ in range(3):
        link = write(journal, [RECORDS[:2]], link)
    assert seqs(slices(tail, end_of(journal, link.seq))) == [4, 5, 6, 7, 8, 9]


def test_what_retention_took_is_counted(journal: Path) -> None:
    slow, late = Tail(journal, Search(), 10), Tail(journal, Search(), 1)
    assert seqs([slow.read(Position(1, 10**9, Link(12, "0" * 64)))])[0] == 10
    for segment in segments(journal)[:2]:
        segment.path.unlink()
    told = slices(late, end_of(journal))
    assert (seqs(told), missing(told)) == (list(range(31, 41)), 30)
    told = slices(slow, end_of(journal))
    assert (seqs(told), missing(told)) == (list(range(31, 41)), 15)


def test_a_damaged_line_is_told_and_not_the_end(journal: Path) -> None:
    rewritten(segments(journal)[1].path, 3, v=7)
    told = slices(Tail(journal, Search(verdict="none such"), 1), end_of(journal))
    assert [(damage.seq, damage.reason) for one in told for damage in one.damages] == [
        (19, "schema version 7 is not 1")
    ]
    assert told[-1].next_seq == 41


def test_lines_taken_out_or_put_in_are_told(journal: Path) -> None:
    first, second, third = segments(journal)
    first.path.write_bytes(b"".join(first.path.read_bytes().splitlines(keepends=True)[:-2]))
    lines = second.path.read_bytes().splitlines(keepends=True)
    second.path.write_bytes(b"".join([*lines, *lines[:3]]))
    third.path.write_bytes(b"".join(third.path.read_bytes().splitlines(keepends=True)[:-4]))
    told = slices(Tail(journal, Search(), 1), end_of(journal))
    assert seqs(told) == [*range(1, 14), *range(16, 31), *range(31, 37)]
    assert missing(told) == 2 + 4
    assert [damage.reason for one in told for damage in one.damages] == [f"it is record {n}" for n in (16, 17, 18)]


def test_a_journal_that_is_gone_is_told_as_missing(journal: Path) -> None:
    for segment in segments(journal):
        segment.path.unlink()
    assert missing(slices(Tail(journal, Search(), 1), Position(31, 100, Link(40, "0" * 64)))) == 40


def test_a_slice_is_bounded_in_lines_items_and_bytes(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    write(journal, [[content()] * (SLICE_LINES + 1), [content(command="x" * 300_000)] * 8], ORIGIN)
    readable = end_of(journal, SLICE_LINES + 9)
    assert Tail(journal, Search(tenant="nobody"), 1).read(readable).next_seq == SLICE_LINES + 1
    assert len(Tail(journal, Search(), 1).read(readable).found) == SLICE_ITEMS
    large = Tail(journal, Search(), SLICE_LINES + 2).read(readable)
    assert sum(len(found.line) for found in large.found) < SLICE_BYTES + 400_000 and not large.caught_up
