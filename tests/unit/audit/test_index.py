"""One segment's index: it finds few, never too few, and takes whatever is looked for as data."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.audit import index as index_module
from sandboxd.audit.history import Place, opened
from sandboxd.audit.index import SegmentIndex
from sandboxd.audit.search import MAX_TEXT_CHARS, Search
from sandboxd.audit.segment import segments
from tests.unit.audit.looked_up import content, write

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SegmentIndex]:
    records = [
        content(
            command=f"run {number} quickly",
            digest={7: DIGEST, 8: "00" + DIGEST * 2}.get(number, ""),
            execution_id=f"e{number % 3}",
        )
        for number in range(100)
    ]
    records[50] = content(command='"; DROP TABLE records; -- OR 1=1 NEAR(a b) {x}: ^"*')
    write(tmp_path / "journal", [[*records, b"damaged"]])
    (segment,) = segments(tmp_path / "journal")
    connection = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    made = SegmentIndex(segment, connection)
    made.create()
    with opened(segment) as descriptor:
        while made.fill(descriptor, None):
            pass
        assert made.is_of(descriptor)
    yield made
    made.close()


def candidates(index: SegmentIndex, search: Search, first: int = 1, last: int = 1000) -> list[int]:
    found = [place.seq for place in index.candidates(search, first, last, newest_first=False)]
    again = [place.seq for place in index.candidates(search, first, last, newest_first=True)]
    assert again == found[::-1]
    return found


def test_few_are_found_and_the_damaged_line_always(index: SegmentIndex) -> None:
    assert candidates(index, Search(text="RUN 33 quick")) == [34, 101]
    assert candidates(index, Search(execution_id="e1"))[:2] == [2, 5]
    assert candidates(index, Search(text="absent")) == [101]
    assert candidates(index, Search(), first=99, last=100) == [99, 100]


def test_a_whole_digest_is_found_and_what_contains_it(index: SegmentIndex) -> None:
    assert candidates(index, Search(text=DIGEST.upper())) == [8, 9, 101]
    assert candidates(index, Search(text="f" * 64)) == [101]


@pytest.mark.parametrize("text", [DIGEST[:32], DIGEST[3:20], DIGEST + "0", "abc", "e"])
def test_what_may_be_part_of_a_digest_or_is_too_short_is_looked_for_everywhere(index: SegmentIndex, text: str) -> None:
    assert len(candidates(index, Search(text=text))) == 101


@pytest.mark.parametrize(
    "text",
    [
        '"', '""', "'", "' OR '1'='1", '" OR "1"="1', "*", "run*", "NEAR(run quickly)", "text:run", "-run", "^run",
        "%", "_", "%%%", "___", "\0", "\0\0\0\0", "a\0b\0c", "\ud800\udfff", "\U0010ffff" * 9, "NOT run AND", "{run}",
        "run" * 300_000, "x" * MAX_TEXT_CHARS, "\\", "--", ";", "?", "?1", ":a", "@a", "$a",
    ],
)  # fmt: skip
def test_hostile_text_finds_nothing_and_breaks_nothing(index: SegmentIndex, text: str) -> None:
    for search in (
        Search(text=text, rule="policy*"), Search(tenant=text), Search(execution_id=text), Search(verdict=text),
        Search(rule=text.strip("*") + "!"), Search(since=text + "3", until=text),
    ):  # fmt: skip
        assert set(candidates(index, search)) <= {*range(1, 102)}
    assert len(candidates(index, Search())) == 101


def test_syntax_that_a_record_holds_is_found_as_text(index: SegmentIndex) -> None:
    for text in ('"; DROP TABLE', "OR 1=1 NEAR(a b)", '{x}: ^"*'):
        assert candidates(index, Search(text=text)) == [51, 101]


def test_a_statement_that_takes_too_long_is_broken_off(index: SegmentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 1_000_000, 100))
    monkeypatch.setattr(index_module, "_STEPS", 1)
    monkeypatch.setattr(index, "_clock", lambda: next(ticks))
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        list(index.candidates(Search(), 1, 1000, newest_first=False))


def test_a_batch_is_indexed_whole_or_not_at_all(
    index: SegmentIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (segment,) = segments(tmp_path / "journal")
    write(tmp_path / "more", [[content()] * 102])
    with segment.path.open("ab") as file:
        file.write((tmp_path / "more" / segment.path.name).read_bytes())
    add, calls = SegmentIndex._add, iter(range(50))

    def failing(self: SegmentIndex, place: Place, line: bytes) -> None:
        if next(calls) == 40:
            raise sqlite3.OperationalError("disk I/O error")
        add(self, place, line)

    monkeypatch.setattr(SegmentIndex, "_add", failing)
    with opened(segment) as descriptor, pytest.raises(sqlite3.OperationalError):
        index.fill(descriptor, None)
    assert len(candidates(index, Search())) == 101
