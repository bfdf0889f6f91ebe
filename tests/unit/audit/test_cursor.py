from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandboxd.audit.choice import Choice
from sandboxd.audit.cursor import BATCH_BYTES, BATCH_RECORDS, LEFT_OUT_BYTES, Batch, Cursor, Reader, load, save
from sandboxd.audit.line import LineDamaged
from sandboxd.audit.recorder import Recorder
from sandboxd.event import ExecutionRequested
from sandboxd.settings.sinks.base import Filter
from tests.fakes.events import made, violated

ALL = Choice(Filter())
NOTHING = Choice(Filter(rules=("policy.decided",), priority="Emergency"))


@asynccontextmanager
async def recorded(directory: Path, count: int, segment_bytes: int = 1 << 24) -> AsyncIterator[Recorder]:
    recorder = Recorder.open(directory, "node", "boot", "write", segment_bytes=segment_bytes)
    for number in range(count):
        await recorder.record(violated(str(number)))
    yield recorder
    await recorder.close()


def all_of(reader: Reader) -> list[Batch]:
    batches = []
    while batch := reader.read():
        reader.cursor = batch.after
        batches.append(batch)
    return batches


def seqs(batches: list[Batch]) -> list[int]:
    return [record.seq for batch in batches for record in batch.records]


async def test_a_batch_is_bounded_in_records(tmp_path: Path) -> None:
    async with recorded(tmp_path, 600) as recorder:
        batches = all_of(Reader(recorder, ALL, None))
    assert [len(batch.records) for batch in batches] == [BATCH_RECORDS, BATCH_RECORDS, 601 - 2 * BATCH_RECORDS]


async def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    async with recorded(tmp_path, 0) as recorder:
        large = made(ExecutionRequested, labels=tuple(("\U0001f4a9" * 512, "\U0001f4a9" * 512) for _ in range(64)))
        for _ in range(4):
            await recorder.record(large)
        size = next(recorder.directory.glob("*.jsonl")).stat().st_size
        batches = all_of(Reader(recorder, ALL, None))
    assert size > 2 * BATCH_BYTES
    assert len(batches) > 1
    assert seqs(batches) == [1, 2, 3, 4, 5]


async def test_what_a_filter_leaves_out_is_passed_in_pieces(tmp_path: Path) -> None:
    async with recorded(tmp_path, 4000) as recorder:
        size = next(recorder.directory.glob("*.jsonl")).stat().st_size
        batches = all_of(Reader(recorder, NOTHING, None))
    assert len(batches) == size // LEFT_OUT_BYTES + 1 > 1
    assert seqs(batches) == []
    assert sum(batch.left_out for batch in batches) == 4001
    assert all(batch.oldest for batch in batches)


async def test_what_is_gone_is_counted(tmp_path: Path) -> None:
    async with recorded(tmp_path, 5, segment_bytes=100) as recorder:
        found = sorted(recorder.directory.glob("*.jsonl"))
        found[0].unlink()
        found[2].unlink()
        batches = all_of(Reader(recorder, ALL, Cursor(0, 0, 0)))
    first_of = [int(path.stem) for path in found]
    gone = [*range(first_of[0], first_of[1]), *range(first_of[2], first_of[3])]
    assert sum(batch.missing for batch in batches) == len(gone)
    assert [batch.missing_from for batch in batches if batch.missing] == [first_of[0], first_of[2]]


async def test_a_record_taken_out_of_a_segment_is_counted(tmp_path: Path) -> None:
    async with recorded(tmp_path, 5) as recorder:
        segment = next(recorder.directory.glob("*.jsonl"))
        whole = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join(whole[:2] + whole[3:]))
        batches = all_of(Reader(recorder, ALL, None))
    assert [(batch.missing_from, batch.missing) for batch in batches] == [(3, 1)]


async def test_a_cursor_behind_a_lost_tail_starts_over(tmp_path: Path) -> None:
    async with recorded(tmp_path, 1) as recorder:
        batches = all_of(Reader(recorder, ALL, Cursor(1, 10_000_000, 400)))
    assert (seqs(batches), batches[0].missing) == ([1, 2], 0)


@pytest.mark.parametrize(
    "place", [(1, 3), (1, 1 << 40), (1, (1 << 62) - 1), (10, 1 << 40), (1 << 40, 0), (3, 0), (0, 0)], ids=str
)
async def test_place_that_is_not_behind_its_record_is_searched_for(place: tuple[int, int], tmp_path: Path) -> None:
    async with recorded(tmp_path, 10, segment_bytes=100) as recorder:
        batches = all_of(Reader(recorder, ALL, Cursor(*place, 1)))
        assert seqs(batches) == list(range(2, recorder.readable.link.seq + 1))
    assert sum(batch.missing for batch in batches) == 0


@pytest.mark.parametrize("place", [None, Cursor(1, 3, 0), Cursor(0, 0, 0)], ids=str)
@pytest.mark.parametrize("choice", [ALL, NOTHING])
async def test_a_damaged_record_is_said_to_be(choice: Choice, place: Cursor | None, tmp_path: Path) -> None:
    async with recorded(tmp_path, 3) as recorder:
        segment = next(recorder.directory.glob("*.jsonl"))
        segment.write_bytes(segment.read_bytes().replace(b'"v":1}\n', b'"v":1]\n', 1))
        with pytest.raises(LineDamaged):
            all_of(Reader(recorder, choice, place))


def test_a_cursor_is_saved_whole(tmp_path: Path) -> None:
    for durable in (False, True):
        save(tmp_path, "fake", Cursor(3, 4, 5 + durable), durable=durable)
        assert load(tmp_path, "fake") == Cursor(3, 4, 5 + durable)
    assert [path.name for path in tmp_path.iterdir()] == ["fake.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"segment": -1, "offset": 0, "seq": 0}',
        b'{"segment": 1, "offset": 9223372036854775807, "seq": 1}',  # no file can be read from there
        b'{"segment": "1"}',
    ],
)
def test_an_unreadable_cursor_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fake.json").write_bytes(content)
    assert load(tmp_path, "fake") is None
