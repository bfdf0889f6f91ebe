"""Checkpoints, rotation by age, retention and the way back from a full disk, by the journal that comes out."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.audit import checkpoint
from sandboxd.audit.recorder import Durability, Recorder
from sandboxd.audit.segment import segments
from sandboxd.audit.upkeep import TICK_SECONDS, Upkeep
from sandboxd.audit.verify import VerifyResult, verify
from sandboxd.errors import AuditUnavailable
from tests.fakes import journal as journals
from tests.fakes.events import violated

SECOND_NS = 1_000_000_000
KEEP_ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Settings:
    segment_seconds: float = 86400.0
    checkpoint_seconds: float = 60.0
    retain_seconds: float | None = None
    retain_bytes: int | None = None


class Node:
    """A recorder and its upkeep, with a clock that the test sets."""

    def __init__(self, state: Path, durability: Durability, settings: Settings, segment_bytes: int) -> None:
        self.state = state
        self.seconds = 1_700_000_000.0
        self.confirmed = KEEP_ALL
        self.recorder = Recorder.open(
            state, "node", "boot", durability, segment_bytes=segment_bytes, clock_ns=self.clock_ns
        )
        self.upkeep = Upkeep(
            self.recorder,
            settings,
            lambda: self.confirmed,
            clock_ns=self.clock_ns,
            steady=lambda: self.seconds,
            sleep=lambda seconds: asyncio.sleep(0),
        )

    def clock_ns(self) -> int:
        return int(self.seconds * SECOND_NS)

    async def after(self, seconds: float) -> None:
        self.seconds += seconds
        await self.upkeep.look()

    def rules(self) -> list[str]:
        return [record.rule for record in journals.records(self.state / "journal")]

    def checkpoints(self) -> int:
        return self.rules().count("journal.checkpoint")

    def checked(self) -> VerifyResult:
        return verify(self.state / "journal", journals.public_of(self.state))


@asynccontextmanager
async def node(
    state: Path, settings: Settings = Settings(), durability: Durability = "write", segment_bytes: int = 1 << 20
) -> AsyncIterator[Node]:
    made = Node(state, durability, settings, segment_bytes)
    try:
        yield made
    finally:
        await made.recorder.close()
    assert made.checked().ok


@pytest.mark.parametrize("durability", ["write", "fsync"])
async def test_what_was_written_is_signed_after_a_while_and_nothing_otherwise(
    tmp_path: Path, durability: Durability
) -> None:
    async with node(tmp_path, durability=durability) as made:
        await made.after(1000)
        assert made.rules() == ["journal.checkpoint"]
        await made.recorder.record(violated())
        await made.after(0)
        assert (made.checkpoints(), made.checked().sealed_seq) == (2, 2)
        await made.recorder.record(violated())
        await made.after(59)
        assert made.checkpoints() == 2
        await made.after(1)
        assert (made.checkpoints(), made.checked().sealed_seq) == (3, 4)


async def test_a_tail_cut_off_behind_the_last_record_is_found_after_the_checkpoint(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.recorder.record(violated())
        await made.after(60)
        (segment,) = segments(tmp_path / "journal")
        whole = segment.path.read_bytes()
        segment.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
        found = made.checked().first_bad
        segment.path.write_bytes(whole)
        assert found is not None
        assert (found.fault, found.seq) == ("truncated", 3)


async def test_the_end_is_signed(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.recorder.record(violated())
    assert made.rules()[-1] == "journal.checkpoint"
    assert made.checked().sealed_seq == 2


async def test_a_segment_that_was_begun_long_ago_is_closed_unless_it_is_empty(tmp_path: Path) -> None:
    async with node(tmp_path, Settings(segment_seconds=100.0)) as made:
        await made.after(1000)
        assert len(segments(tmp_path / "journal")) == 1
        await made.recorder.record(violated())
        await made.after(0)
        assert len(segments(tmp_path / "journal")) == 2
        await made.after(60)  # it is closed by the checkpoint that begins the next
        assert made.rules() == ["journal.checkpoint", "sandbox.violated", "journal.checkpoint"]


async def test_the_checkpoint_of_a_segment_that_records_began_is_kept_at_once(tmp_path: Path) -> None:
    async with node(tmp_path, segment_bytes=2000) as made:
        while len(segments(tmp_path / "journal")) < 3:
            await made.recorder.record(violated())
        await made.after(1)
        kept = (tmp_path / "journal" / checkpoint.LAST).read_bytes()
        assert segments(tmp_path / "journal")[-1].path.read_bytes().startswith(kept)


# Retention.


async def _fill(made: Node, count: int) -> None:
    while len(segments(made.state / "journal")) < count:
        made.recorder.store(os.urandom(10))
        await made.recorder.record(violated())


async def test_retention_is_on_record_and_what_is_left_verifies(tmp_path: Path) -> None:
    async with node(tmp_path, Settings(retain_bytes=9000), segment_bytes=2000) as made:
        await _fill(made, 12)
        second = segments(tmp_path / "journal")[1].first_seq
        await made.after(1)
        result = made.checked()
        assert (result.ok, result.first_seq > second) == (True, True)
        (trimmed,) = [record for record in journals.records(tmp_path / "journal") if record.rule == "journal.trimmed"]
        fields = dict(trimmed.fields)
        assert (fields["first_seq"], fields["reason"]) == (result.first_seq, "bytes")
        await made.after(100)
        assert made.rules().count("journal.trimmed") == 1
    assert not Recorder.open(tmp_path, "node", "boot", "write").readable.link.seq < result.last_seq


async def test_segments_that_retention_did_not_take_are_missed(tmp_path: Path) -> None:
    async with node(tmp_path, Settings(retain_bytes=6000), segment_bytes=2000) as made:
        await _fill(made, 8)
        await made.after(1)
        oldest = segments(tmp_path / "journal")[0]
        content = oldest.path.read_bytes()
        oldest.path.unlink()
        found = made.checked().first_bad
        oldest.path.write_bytes(content)
        assert found is not None
        assert (found.fault, found.seq) == ("missing", oldest.first_seq)


async def test_a_required_sink_holds_retention_back(tmp_path: Path) -> None:
    async with node(tmp_path, Settings(retain_seconds=60.0), segment_bytes=2000) as made:
        await _fill(made, 5)
        before = segments(tmp_path / "journal")
        made.confirmed = before[1].first_seq - 2
        await made.after(1000)
        assert segments(tmp_path / "journal")[: len(before)] == before
        made.confirmed = before[1].first_seq - 1
        await made.after(1000)
        assert segments(tmp_path / "journal")[0] == before[1]


async def test_documents_go_with_the_records_that_name_them(tmp_path: Path) -> None:
    async with node(tmp_path, Settings(retain_seconds=60.0), segment_bytes=2000) as made:
        old = tmp_path / "documents" / f"{1:020d}.pack"
        old.write_bytes(b"old")
        os.utime(old, (0, 0))
        await _fill(made, 3)
        (open_pack,) = {path.name for path in (tmp_path / "documents").iterdir()} - {old.name}
        os.utime(tmp_path / "documents" / open_pack, (0, 0))
        await made.after(1000)
        assert [path.name for path in (tmp_path / "documents").iterdir()] == [open_pack]


async def test_a_damaged_journal_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with node(tmp_path, Settings(retain_bytes=4000), segment_bytes=2000) as made:
        await _fill(made, 5)
        first = segments(tmp_path / "journal")[0].path
        content = first.read_bytes()
        first.write_bytes(b"x" + content)
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                await made.after(100)
        assert [record.message for record in caplog.records] == ["upkeep of the journal failed, trying again"]
        assert first.exists()
        first.write_bytes(content)


# A disk that is full for a while.


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("durability", "call"), [("write", "write"), ("fsync", "write"), ("fsync", "fdatasync")])
async def test_what_a_full_disk_did_not_take_is_on_record_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability, call: str
) -> None:
    alarms: list[None] = []
    async with node(tmp_path, durability=durability) as made:
        made.recorder.on_failure(lambda: alarms.append(None))
        await made.recorder.record(violated("before"))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, _full)
            for number in range(3):
                made.seconds += 1
                with pytest.raises(AuditUnavailable):
                    await made.recorder.record(violated(f"lost {number}"))
            await made.after(1)
            assert (made.recorder.available(), made.recorder.whole, len(alarms)) == (False, False, 1)
        await made.after(1)
        assert (made.recorder.available(), made.recorder.whole) == (True, True)
        await made.recorder.record(violated("after"))
    found = journals.events(tmp_path / "journal")
    assert [record.rule for record in found] == ["sandbox.violated", "journal.gap", *["sandbox.violated"] * 4]
    gap = dict(found[1].fields)
    assert (gap["records"], gap["kept"], gap["rules"]) == (3, 3, (("sandbox.violated", 3),))
    assert gap["since"] == "2023-11-14T22:13:21.000000000Z"
    assert [dict(record.fields)["detail"] for record in found[2:]] == ["lost 0", "lost 1", "lost 2", "after"]
    assert found[3].time == "2023-11-14T22:13:22.000000000Z"


async def test_an_event_that_finds_room_again_comes_after_what_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(tmp_path) as made:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", _full)
            with pytest.raises(AuditUnavailable):
                await made.recorder.record(violated("lost"))
            with pytest.raises(AuditUnavailable):
                made.recorder.store(b"lost")
        await made.recorder.record(violated("after"))
    found = journals.events(tmp_path / "journal")
    assert [dict(record.fields).get("detail") for record in found] == [None, "lost", "after"]
    assert dict(found[0].fields)["documents"] == 1


async def test_a_checkpoint_that_cannot_be_written_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(tmp_path) as made:
        await made.recorder.record(violated())
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", _full)
            await made.after(60)
            assert not made.recorder.available()
        await made.after(1)
        assert made.recorder.available()
        assert made.checkpoints() == 2


async def test_a_checkpoint_is_not_kept_before_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(tmp_path) as made:
        before = (tmp_path / "journal" / checkpoint.LAST).read_bytes()
        await made.recorder.record(violated())
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _full)
            await made.after(60)
            assert (tmp_path / "journal" / checkpoint.LAST).read_bytes() == before
        await made.after(1)
        assert (tmp_path / "journal" / checkpoint.LAST).read_bytes() != before


async def test_it_runs_until_it_is_cancelled(tmp_path: Path) -> None:
    naps: list[float] = []

    async with node(tmp_path, Settings(checkpoint_seconds=1.0)) as made:
        await made.recorder.record(violated())

        async def sleep(seconds: float) -> None:
            naps.append(seconds)
            made.seconds += seconds
            await asyncio.sleep(0)

        made.upkeep._sleep = sleep
        task = asyncio.create_task(made.upkeep.run())
        while made.checkpoints() < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
    assert set(naps) == {TICK_SECONDS}
