"""The daemon's reader: the index follows the recorder by itself, and nothing that goes wrong with it reaches that."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.audit import reader as reader_module
from sandboxd.audit.lookup import Query
from sandboxd.audit.reader import INDEX, AuditReader
from sandboxd.audit.recorder import Recorder
from sandboxd.audit.search import Search
from sandboxd.audit.shelf import Shelf
from sandboxd.errors import Draining
from tests.fakes.events import violated


@dataclass
class Reading:
    recorder: Recorder
    reader: AuditReader
    state: Path
    task: asyncio.Task[None]

    async def write(self, count: int) -> None:
        for number in range(count):
            await self.recorder.record(violated(f"detail {number}"))

    async def found(self, text: str) -> int:
        return len((await self.reader.query(Query(Search(text=text), size=1000))).found)


@pytest.fixture
def index_seconds() -> float:
    """How long it waits before it indexes what is new; overridden by a test that wants to be alone with the index."""
    return 0.001


@pytest.fixture
async def reading(tmp_path: Path, index_seconds: float, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reading]:
    monkeypatch.setattr(reader_module, "INDEX_SECONDS", index_seconds)
    recorder = Recorder.open(tmp_path, "n", "b", "write", segment_bytes=20_000)
    reader = AuditReader(recorder, tmp_path)
    task = asyncio.create_task(reader.run())
    yield Reading(recorder, reader, tmp_path, task)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await recorder.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_written_is_indexed_without_being_asked_for(reading: Reading) -> None:
    await reading.write(100)
    journal = reading.recorder.directory
    await until(lambda: len(list((reading.state / INDEX).glob("*.sqlite"))) == len(list(journal.glob("*.jsonl"))) > 2)
    assert await reading.found("detail 7") == 11


async def test_what_was_just_written_is_found(reading: Reading) -> None:
    for number in range(20):
        await reading.recorder.record(violated(f"fresh {number}."))
        assert await reading.found(f"fresh {number}.") == 1


@pytest.mark.parametrize("index_seconds", [1000.0])
async def test_an_index_that_goes_away_or_cannot_be_had_harms_nothing(reading: Reading) -> None:
    await reading.write(50)
    assert await reading.found("detail") == 50
    shutil.rmtree(reading.state / INDEX)
    (reading.state / INDEX).write_text("in the way")
    await reading.write(50)
    assert await reading.found("detail") == 100
    assert not reading.task.done()


async def test_a_failing_disk_is_logged_and_tried_again(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def failing(*_: object) -> None:
        failed.append(1)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Shelf, "prune", failing)
    await reading.write(1)
    await until(lambda: len(failed) >= 1)
    before = len(failed)  # what was there may have been news of its own
    await reading.write(1)
    await until(lambda: len(failed) > before)
    assert not reading.task.done()


async def test_the_loop_is_free_while_something_is_looked_up(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    started, released = threading.Event(), threading.Event()

    def stuck(*_: object) -> object:
        started.set()
        released.wait(30)
        raise OSError

    monkeypatch.setattr(reading.reader._lookup, "page", stuck)
    task = asyncio.create_task(reading.reader.query(Query(Search())))
    await until(started.is_set)
    async with aclosing(reading.reader.tail(Search(), 0)) as slices:
        assert (await anext(slices)).found
    await reading.write(1)
    released.set()
    with pytest.raises(OSError):
        await task


async def test_after_its_end_nothing_is_answered(reading: Reading) -> None:
    async with aclosing(reading.reader.tail(Search(), None)) as slices:
        await anext(slices)
        reading.reader.close()
        with pytest.raises(Draining):
            await anext(slices)
    with pytest.raises(Draining):
        await reading.reader.query(Query(Search()))
    assert reading.reader._tails == set()


async def test_records_of_fsync_mode_are_told_once_they_cannot_be_taken_back(tmp_path: Path) -> None:
    recorder = Recorder.open(tmp_path, "n", "b", "fsync")
    reader = AuditReader(recorder, tmp_path)
    task = asyncio.create_task(reader.run())
    await recorder.record(violated("durable"))
    async with aclosing(reader.tail(Search(text="durable"), 0)) as slices:
        assert len((await anext(slices)).found) == 1
    assert len((await reader.query(Query(Search(text="durable")))).found) == 1
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await recorder.close()


async def test_without_an_index_nothing_is_indexed_and_all_is_found(tmp_path: Path) -> None:
    recorder = Recorder.open(tmp_path, "n", "b", "write")
    reader = AuditReader(recorder, tmp_path, indexed=False)
    task = asyncio.create_task(reader.run())
    await recorder.record(violated("needle"))
    assert len((await reader.query(Query(Search(text="needle")))).found) == 1
    assert not await reader._advance()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await recorder.close()
    assert not (tmp_path / INDEX).exists()
