import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sandboxd.audit.cursor import START, Cursor, Feed, load, save
from sandboxd.audit.recorder import Recorder
from sandboxd.settings.sinks.base import SinkSettings
from tests.fakes.events import violated
from tests.fakes.sink import SETTINGS, FakeSink


@asynccontextmanager
async def recording(directory: Path, segment_bytes: int = 1 << 20) -> AsyncIterator[Recorder]:
    recorder = Recorder.open(directory, "node", "boot", "write", segment_bytes=segment_bytes)
    try:
        yield recorder
    finally:
        await recorder.close()


class Naps:
    """Sleeps that take no time and are remembered, lingering left out."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        if seconds > 0.1:
            self.taken.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def feeding(
    recorder: Recorder,
    sink: FakeSink,
    directory: Path,
    naps: Naps | None = None,
    settings: SinkSettings = SETTINGS,
) -> AsyncIterator[Feed]:
    feed = Feed(recorder, sink, settings, directory / "cursors", jitter=lambda: 1.0, sleep=naps or Naps())
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def details(sink: FakeSink) -> list[object]:
    return [dict(record.fields)["detail"] for record in sink.taken]


async def test_every_record_reaches_the_sink_in_order_across_segments(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path, segment_bytes=2000) as recorder, feeding(recorder, sink, tmp_path) as feed:
        for number in range(600):
            await recorder.record(violated(str(number)))
        await sink.has(600)
        assert details(sink) == [str(number) for number in range(600)]
        assert feed.lag == 0
    assert sink.closed


async def test_a_restart_goes_on_behind_the_last_record(tmp_path: Path) -> None:
    first, second = FakeSink(), FakeSink()
    async with recording(tmp_path, segment_bytes=2000) as recorder:
        for number in range(20):
            await recorder.record(violated(str(number)))
        async with feeding(recorder, first, tmp_path):
            await first.has(20)
        await recorder.record(violated("new"))
        async with feeding(recorder, second, tmp_path):
            await second.has(1)
    assert details(second) == ["new"]


async def test_a_crash_sends_again_and_loses_nothing(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path) as recorder:
        for number in range(5):
            await recorder.record(violated(str(number)))
        save(tmp_path / "cursors", "fake", START)
        async with feeding(recorder, sink, tmp_path):
            await sink.has(5)
    assert [record.seq for record in sink.taken] == [1, 2, 3, 4, 5]


async def test_a_refusing_sink_is_tried_again_ever_more_slowly_and_then_gets_all(tmp_path: Path) -> None:
    sink, naps = FakeSink(refusals=10), Naps()
    async with recording(tmp_path) as recorder, feeding(recorder, sink, tmp_path, naps) as feed:
        await recorder.record(violated("a"))
        await sink.has(1)
        assert naps.taken == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert feed.failures == 0
    assert details(sink) == ["a"]


async def test_a_stuck_sink_delays_only_itself(tmp_path: Path) -> None:
    stuck, well = FakeSink(stuck=True), FakeSink()
    async with (
        recording(tmp_path) as recorder,
        feeding(recorder, stuck, tmp_path, settings=SinkSettings(type="fake", name="stuck")) as behind,
        feeding(recorder, well, tmp_path),
    ):
        for number in range(50):
            await recorder.record(violated(str(number)))
        await well.has(50)
        assert behind.lag == 50
        assert stuck.taken == []


async def test_a_cursor_behind_a_lost_tail_starts_over(tmp_path: Path) -> None:
    sink = FakeSink()
    save(tmp_path / "cursors", "fake", Cursor(1, 10_000_000, 400))
    async with recording(tmp_path) as recorder:
        await recorder.record(violated("a"))
        async with feeding(recorder, sink, tmp_path):
            await sink.has(1)
    assert details(sink) == ["a"]


async def test_segments_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path, segment_bytes=100) as recorder:
        for number in range(3):
            await recorder.record(violated(str(number)))
        sorted((tmp_path / "journal").glob("*.jsonl"))[0].unlink()
        async with feeding(recorder, sink, tmp_path):
            await sink.has(2)
    assert details(sink) == ["1", "2"]


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
def test_an_unreadable_cursor_is_the_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fake.json").write_bytes(content)
    assert load(tmp_path, "fake") == START


@pytest.mark.parametrize(
    "place", [(1, 3), (1, 1 << 40), (1, (1 << 62) - 1), (10, 1 << 40), (1 << 40, 0), (3, 0), (0, 0)], ids=str
)
async def test_place_that_is_not_behind_its_record_is_searched_for(place: tuple[int, int], tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path, segment_bytes=100) as recorder:
        for number in range(10):
            await recorder.record(violated(str(number)))
        save(tmp_path / "cursors", "fake", Cursor(*place, 1))
        async with feeding(recorder, sink, tmp_path):
            await sink.has(9)
    assert [record.seq for record in sink.taken] == list(range(2, 11))


async def test_damaged_record_ends_the_feed_wherever_it_stood(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path) as recorder:
        for number in range(3):
            await recorder.record(violated(str(number)))
        first = next(path for path in recorder.directory.iterdir() if path.suffix == ".jsonl")
        first.write_bytes(b"x" + first.read_bytes()[1:])
        save(tmp_path / "cursors", "fake", Cursor(1, 3, 0))
        await asyncio.wait_for(Feed(recorder, sink, SETTINGS, tmp_path / "cursors", sleep=Naps()).run(), 5)
    assert sink.taken == []


def test_a_cursor_is_saved_whole(tmp_path: Path) -> None:
    save(tmp_path, "fake", Cursor(3, 4, 5))
    assert load(tmp_path, "fake") == Cursor(3, 4, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["fake.json"]
