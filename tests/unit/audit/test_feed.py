import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.audit import feed as feeds
from sandboxd.audit.cursor import Cursor, load, save
from sandboxd.audit.feed import Feed
from sandboxd.audit.recorder import Recorder
from sandboxd.settings.sinks.base import Filter, SinkSettings
from sandboxd.sink.base import Record, SinkRefused, SinkUnavailable
from tests.fakes.events import violated
from tests.fakes.sink import POISON, SETTINGS, FakeSink
from tests.unit.audit.test_journal import file_size_limit

REQUIRED = SinkSettings(type="fake", required=True)


@pytest.fixture(autouse=True)
def _saves_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "SAVE_SECONDS", 0.02)


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
    return [dict(record.fields)["detail"] for record in sink.taken if record.rule == "sandbox.violated"]


def told(sink: FakeSink) -> list[str]:
    return [record.rule for record in sink.taken if record.rule.startswith("sink.")]


async def everything(recorder: Recorder, feed: Feed) -> None:
    """Until there is nothing left to take, and the place is saved."""
    async with asyncio.timeout(20):
        while feed.status.lag_records or feed.confirmed < recorder.readable.link.seq:
            await asyncio.sleep(0.01)


async def test_every_record_reaches_the_sink_in_order_across_segments(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path, segment_bytes=40_000) as recorder, feeding(recorder, sink, tmp_path) as feed:
        for number in range(600):
            await recorder.record(violated(str(number)))
        await everything(recorder, feed)
        assert details(sink) == [str(number) for number in range(600)]
        assert [record.seq for record in sink.taken] == list(range(1, recorder.readable.link.seq + 1))
    assert sink.closed


async def test_a_restart_goes_on_behind_the_last_record(tmp_path: Path) -> None:
    first, second = FakeSink(), FakeSink()
    async with recording(tmp_path, segment_bytes=2000) as recorder:
        for number in range(20):
            await recorder.record(violated(str(number)))
        async with feeding(recorder, first, tmp_path):
            await first.has(recorder.readable.link.seq)
        await recorder.record(violated("new"))
        async with feeding(recorder, second, tmp_path):
            await second.has(1)
    assert details(second) == ["new"]


async def test_a_crash_sends_again_and_loses_nothing(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path) as recorder:
        for number in range(5):
            await recorder.record(violated(str(number)))
        save(tmp_path / "cursors", "fake", Cursor(0, 0, 0))
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
    assert details(sink) == ["0", "1", "2", "3", "4"]
    assert feed.status.lost_records == 0


async def test_a_refusing_sink_is_tried_again_ever_more_slowly_and_then_gets_all(tmp_path: Path) -> None:
    sink, naps = FakeSink(refusals=10), Naps()
    async with recording(tmp_path) as recorder, feeding(recorder, sink, tmp_path, naps) as feed:
        await recorder.record(violated("a"))
        await sink.has(2)
        assert naps.taken == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
        await everything(recorder, feed)
        assert (feed.status.state, feed.status.failures, feed.status.retries) == ("ok", 0, 10)
        assert feed.status.last_error == "not now"
        assert feed.status.last_error_at <= feed.status.last_success_at
    assert details(sink) == ["a"]


async def test_trouble_is_on_record_once_when_it_begins_and_once_when_it_ends(tmp_path: Path) -> None:
    sink = FakeSink(refusals=10)
    async with recording(tmp_path) as recorder, feeding(recorder, sink, tmp_path) as feed:
        await recorder.record(violated("a"))
        await sink.has(1)
        await everything(recorder, feed)
        before = recorder.readable.link.seq
        await everything(recorder, feed)
        assert recorder.readable.link.seq == before
    assert told(sink) == ["sink.failed", "sink.recovered"]


@dataclass
class Later(FakeSink):
    """Names a time at which to come again."""

    after_seconds: float = 0.0

    async def send(self, records: Sequence[Record]) -> None:
        try:
            await super().send(records)
        except SinkUnavailable as error:
            raise SinkUnavailable(str(error), self.after_seconds) from error


@pytest.mark.parametrize(("after_seconds", "waited"), [(7.0, 7.0), (0.1, 0.5), (1e9, 300.0)])
async def test_the_time_that_a_receiver_names_is_kept_within_bounds(
    after_seconds: float, waited: float, tmp_path: Path
) -> None:
    sink, naps = Later(refusals=1, after_seconds=after_seconds), Naps()
    async with recording(tmp_path) as recorder, feeding(recorder, sink, tmp_path, naps):
        await sink.has(1)
    assert naps.taken == [waited]


async def test_a_stuck_sink_delays_only_itself(tmp_path: Path) -> None:
    stuck, well = FakeSink(stuck=True), FakeSink()
    async with (
        recording(tmp_path) as recorder,
        feeding(recorder, stuck, tmp_path, settings=SinkSettings(type="fake", name="stuck")) as behind,
        feeding(recorder, well, tmp_path),
    ):
        for number in range(50):
            await recorder.record(violated(str(number)))
        await well.has(51)
        assert behind.status.lag_records == 51
        assert behind.status.lag_seconds > 0
        assert stuck.taken == []


async def test_a_sink_that_does_not_answer_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "STUCK_SECONDS", 0.01)
    stuck, well = FakeSink(stuck=True), FakeSink()
    async with (
        recording(tmp_path) as recorder,
        feeding(recorder, stuck, tmp_path, settings=SinkSettings(type="fake", name="stuck")) as behind,
        feeding(recorder, well, tmp_path),
    ):
        await well.has(2)
        assert behind.status.state == "stuck"
    failed = next(record for record in well.taken if record.rule == "sink.failed")
    assert dict(failed.fields)["sink"] == "stuck"
    assert stuck.attempts == 1


class Broken(FakeSink):
    async def send(self, records: Sequence[Record]) -> None:
        await super().send(records)
        if self.attempts == 1:
            raise KeyError("a mistake in a sink")


async def test_a_mistake_in_a_sink_is_logged_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = Broken()
    async with recording(tmp_path) as recorder, feeding(recorder, sink, tmp_path) as feed:
        await everything(recorder, feed)
    assert [record.seq for record in sink.taken] == [1, 1]
    assert any(entry.exc_info for entry in caplog.records)


@pytest.mark.parametrize("vague", [False, True])
async def test_what_a_sink_refuses_for_good_is_passed_over_alone_and_on_record(vague: bool, tmp_path: Path) -> None:
    sink = FakeSink(vague=vague)
    async with recording(tmp_path) as recorder:
        for detail in ("a", "b", POISON, "c", POISON, "d"):
            await recorder.record(violated(detail))
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
    assert details(sink) == ["a", "b", "c", "d"]
    skipped = [dict(record.fields) for record in sink.taken if record.rule == "sink.skipped"]
    assert [fields["seq"] for fields in skipped] == [4, 6]
    assert skipped[0]["of_rule"] == "sandbox.violated"
    assert len(str(skipped[0]["sha256"])) == 64
    assert feed.status.refused_records == 2
    seqs = [record.seq for record in sink.taken]
    assert seqs == sorted(set(seqs))


async def test_a_required_sink_is_never_spared_what_it_refuses(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path) as recorder:
        for detail in ("a", POISON, "b"):
            await recorder.record(violated(detail))
        async with feeding(recorder, sink, tmp_path, settings=REQUIRED) as feed:
            await sink.tried(50)
            assert feed.status.state == "failing"
            assert feed.confirmed < 3
            assert "record 3" in feed.status.last_error
    assert details(sink) == ["a"]


async def test_a_whole_batch_that_is_refused_is_passed_over_record_by_record(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path) as recorder:
        for _ in range(256):
            await recorder.record(violated(POISON))
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
    assert feed.status.refused_records == 256
    assert details(sink) == []


async def test_the_last_place_is_not_saved_while_another_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving, go = threading.Event(), threading.Event()
    under_way: list[int] = []

    def slowly(directory: Path, name: str, cursor: Cursor, *, durable: bool) -> None:
        under_way.append(len(under_way) - len(done))
        saving.set()
        go.wait(20)
        save(directory, name, cursor, durable=durable)
        done.append(cursor)

    done: list[Cursor] = []
    monkeypatch.setattr(feeds, "save", slowly)
    async with recording(tmp_path) as recorder:
        feed = Feed(recorder, FakeSink(), REQUIRED, tmp_path / "cursors", sleep=Naps())
        task = asyncio.create_task(feed.run())
        assert await asyncio.to_thread(saving.wait, 20)
        task.cancel()
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.wait([task])
    assert set(under_way) == {0}


class RefusesAll(FakeSink):
    async def send(self, records: Sequence[Record]) -> None:
        await super().send([])
        raise SinkRefused("400", None)


async def test_events_of_refusals_that_are_refused_make_no_more_of_them(tmp_path: Path) -> None:
    sink = RefusesAll()
    async with recording(tmp_path) as recorder:
        await recorder.record(violated("a"))
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
            # checkpoint and event, what tells of the two, and that it fails
            assert recorder.readable.link.seq == 5
            assert feed.status.refused_records == 5


async def test_a_filter_leaves_out_and_the_place_moves_on_all_the_same(tmp_path: Path) -> None:
    sink = FakeSink()
    settings = SinkSettings(type="fake", filter=Filter(rules=("policy.*",)))
    async with recording(tmp_path) as recorder:
        for number in range(3000):
            await recorder.record(violated(str(number)))
        async with feeding(recorder, sink, tmp_path, settings=settings) as feed:
            await everything(recorder, feed)
            count = recorder.readable.link.seq
            assert feed.confirmed == count > 3000
            assert (feed.status.filtered_records, feed.status.sent_records) == (count, 0)
    assert sink.attempts == 0


async def test_a_place_is_saved_while_there_is_always_something_new(tmp_path: Path) -> None:
    sink, now = FakeSink(), [0.0]
    async with recording(tmp_path) as recorder:
        feed = Feed(recorder, sink, REQUIRED, tmp_path / "cursors", sleep=Naps(), clock=lambda: now[0])
        task = asyncio.create_task(feed.run())
        for number in range(20):
            now[0] += 10
            await recorder.record(violated(str(number)))
            await sink.has(number + 1)
        assert feed.confirmed > 10
        place = load(tmp_path / "cursors", "fake")
        assert place is not None
        assert place.seq >= feed.confirmed
        task.cancel()
        await asyncio.wait([task])


async def test_records_that_are_gone_before_the_sink_had_them_are_counted_and_on_record(tmp_path: Path) -> None:
    sink, late = FakeSink(), FakeSink()
    async with recording(tmp_path, segment_bytes=2000) as recorder:
        await recorder.record(violated("first"))
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
        had = feed.confirmed
        for number in range(20):
            await recorder.record(violated(str(number)))
        for path in sorted(recorder.directory.glob("*.jsonl"))[:-2]:
            path.unlink()
        oldest = int(min(path.stem for path in recorder.directory.glob("*.jsonl")))
        async with feeding(recorder, late, tmp_path) as feed:
            await everything(recorder, feed)
            assert feed.status.lost_records == oldest - had - 1 > 0
    assert late.taken[0].seq == oldest
    lagged = [dict(record.fields) for record in late.taken if record.rule == "sink.lagged"]
    assert [(fields["first_seq"], fields["records"]) for fields in lagged] == [(had + 1, oldest - had - 1)]


async def test_a_new_sink_has_lost_nothing_of_what_is_gone_already(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path, segment_bytes=2000) as recorder:
        for number in range(20):
            await recorder.record(violated(str(number)))
        min(recorder.directory.glob("*.jsonl")).unlink()
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
            assert feed.status.lost_records == 0
    assert told(sink) == []


async def test_a_sink_that_never_took_anything_is_told_what_it_missed(tmp_path: Path) -> None:
    sink = FakeSink()
    async with recording(tmp_path, segment_bytes=2000) as recorder:
        async with feeding(recorder, FakeSink(stuck=True), tmp_path):
            await asyncio.sleep(0.01)
        for number in range(20):
            await recorder.record(violated(str(number)))
        min(recorder.directory.glob("*.jsonl")).unlink()
        async with feeding(recorder, sink, tmp_path) as feed:
            await everything(recorder, feed)
            assert feed.status.lost_records > 0


async def test_what_cannot_be_put_on_record_now_holds_the_place_and_is_told_later(tmp_path: Path) -> None:
    sink, settings = FakeSink(), SinkSettings(type="fake", required=True, filter=Filter(rules=("sandbox.violated",)))
    save(tmp_path / "cursors", "fake", Cursor(1, 0, 0))
    async with recording(tmp_path, segment_bytes=2000) as recorder:
        for number in range(20):
            await recorder.record(violated(str(number)))
        min(recorder.directory.glob("*.jsonl")).unlink()
        count = len(list(recorder.directory.glob("*.jsonl")))
        with file_size_limit(100):
            async with feeding(recorder, sink, tmp_path, settings=settings) as feed:
                await sink.has(count)
                while feed.status.lag_records:
                    await asyncio.sleep(0.01)
                assert feed.confirmed == 0
        async with feeding(recorder, FakeSink(), tmp_path, settings=settings) as feed:
            await everything(recorder, feed)
        rules = [line for path in recorder.directory.glob("*.jsonl") for line in path.read_text().splitlines()]
        assert sum('"rule":"sink.lagged"' in line for line in rules) == 1


async def test_a_damaged_record_ends_the_feed_wherever_it_stood_and_is_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FakeSink()
    caplog.set_level(logging.ERROR)
    async with recording(tmp_path) as recorder:
        for number in range(3):
            await recorder.record(violated(str(number)))
        first = next(path for path in recorder.directory.iterdir() if path.suffix == ".jsonl")
        first.write_bytes(b"x" + first.read_bytes()[1:])
        save(tmp_path / "cursors", "fake", Cursor(1, 3, 0))
        feed = Feed(recorder, sink, SETTINGS, tmp_path / "cursors", sleep=Naps())
        await asyncio.wait_for(feed.run(), 5)
        assert feed.status.state == "damaged"
        assert feed.status.lag_records > 0
        await asyncio.sleep(0.01)
        assert feed.status.lag_seconds > 0
        assert '"rule":"sink.failed"' in first.read_text()
    assert sink.taken == []


async def test_a_journal_that_cannot_be_read_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FakeSink()
    async with recording(tmp_path) as recorder:
        segment = next(recorder.directory.glob("*.jsonl"))
        away = tmp_path / "away"
        feed = Feed(recorder, sink, SETTINGS, tmp_path / "cursors", sleep=Naps())
        segment.rename(away)
        segment.symlink_to(away)  # links are not followed
        task = asyncio.create_task(feed.run())
        async with asyncio.timeout(10):
            while feed.status.retries < 2:
                await asyncio.sleep(0.001)
        segment.unlink()
        away.rename(segment)
        await sink.has(1)
        task.cancel()
        await asyncio.wait([task])


async def test_what_nobody_fetched_from_the_sink_in_time_counts_as_lost(tmp_path: Path) -> None:
    class FetchedSink(FakeSink):
        dropped = 3

    sink = FetchedSink()
    async with recording(tmp_path) as recorder, feeding(recorder, sink, tmp_path) as feed:
        await everything(recorder, feed)
        assert feed.status.lost_records == 3
