import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from sandboxd.audit import journal as journal_module
from sandboxd.audit.recorder import Durability, Recorder
from sandboxd.audit.segment import segments
from sandboxd.audit.verify import VerifyResult, verify
from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event
from sandboxd.sink.base import Record
from tests.fakes import journal as journals
from tests.fakes.events import violated


def make(directory: Path, durability: Durability = "write", segment_bytes: int = 1 << 20) -> Recorder:
    return Recorder.open(directory, "node", "boot", durability, segment_bytes=segment_bytes, clock_ns=lambda: 1)


def written(directory: Path) -> list[Record]:
    return journals.events(directory / "journal")


def checked(directory: Path) -> VerifyResult:
    return verify(directory / "journal", journals.public_of(directory))


@pytest.mark.parametrize("durability", ["write", "fsync"])
async def test_events_are_on_record_when_record_returns(tmp_path: Path, durability: Durability) -> None:
    recorder = make(tmp_path, durability)
    assert [await recorder.record(violated(str(number))) for number in range(3)] == [2, 3, 4]
    assert [dict(record.fields)["detail"] for record in written(tmp_path)] == ["0", "1", "2"]
    assert recorder.readable.link.seq == 4
    assert recorder.available()
    await recorder.close()


@pytest.mark.parametrize("durability", ["write", "fsync"])
async def test_many_at_once_get_different_numbers_and_one_chain(tmp_path: Path, durability: Durability) -> None:
    recorder = make(tmp_path, durability, segment_bytes=4000)
    numbers = await asyncio.gather(*(recorder.record(violated(str(number))) for number in range(100)))
    assert len(set(numbers)) == 100
    await recorder.close()
    assert checked(tmp_path).ok
    assert len(written(tmp_path)) == 100
    assert len(segments(tmp_path / "journal")) > 1


async def test_waiters_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes = 0
    real = journal_module.Journal.sync

    def counted(self: journal_module.Journal) -> None:
        nonlocal flushes
        flushes += 1
        real(self)

    monkeypatch.setattr(journal_module.Journal, "sync", counted)
    recorder = make(tmp_path, "fsync")
    await asyncio.gather(*(recorder.record(violated(str(number))) for number in range(50)))
    await recorder.close()
    assert 1 <= flushes <= 5  # one of the start and one of the end


async def test_sinks_may_not_read_what_is_not_durable_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    real = journal_module.Journal.sync

    def held(self: journal_module.Journal) -> None:
        go.wait(20)
        real(self)

    recorder = make(tmp_path, "fsync")
    monkeypatch.setattr(journal_module.Journal, "sync", held)
    task = asyncio.create_task(recorder.record(violated()))
    while not written(tmp_path):
        await asyncio.sleep(0)
    assert recorder.readable.link.seq == 1
    go.set()
    assert await task == 2
    assert recorder.readable.link.seq == 2
    await recorder.close()


async def test_a_failed_flush_refuses_everyone_who_waited_and_takes_their_records_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make(tmp_path, "fsync")
    await recorder.record(violated("kept"))
    failing = monkeypatch.context()
    with failing as patch:
        patch.setattr(os, "fdatasync", _broken)
        answers = await asyncio.gather(*(recorder.record(violated("lost")) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, AuditUnavailable) for answer in answers)
    assert not recorder.available()
    assert recorder.failures == 3
    await recorder.record(violated("next"))
    assert recorder.available()
    await recorder.close()
    assert [dict(record.fields).get("detail") for record in written(tmp_path)] == ["kept", None, *["lost"] * 3, "next"]
    assert checked(tmp_path).ok


def _broken(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


async def test_an_unwritable_journal_refuses_until_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: _broken(descriptor))
        with pytest.raises(AuditUnavailable, match="Input/output error"):
            await recorder.record(violated())
        assert not recorder.available()
        with pytest.raises(AuditUnavailable, match=r"document cannot be written.*mend its disk"):
            recorder.store(b"{}")
        assert recorder.failures == 2
    await recorder.record(violated())
    assert recorder.available()
    await recorder.close()


@pytest.mark.parametrize("durability", ["write", "fsync"])
async def test_an_observer_is_given_what_is_on_record_and_nothing_else(
    tmp_path: Path, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Event] = []
    recorder = make(tmp_path, durability)
    recorder.observe(seen.append)
    first, lost = violated("first"), violated("lost")
    await recorder.record(first)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write" if durability == "write" else "fdatasync", lambda descriptor, *_: _broken(descriptor))
        with pytest.raises(AuditUnavailable):
            await recorder.record(lost)
    assert seen == [first]
    assert not recorder.whole
    await recorder.close()


async def test_a_repair_is_the_first_event_after_it(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    await recorder.record(violated())
    await recorder.close()
    path = segments(tmp_path / "journal")[0].path
    with path.open("ab") as file:
        file.write(b'{"torn')
    recorder = make(tmp_path)
    await recorder.record(violated())
    await recorder.close()
    records = written(tmp_path)
    assert [record.rule for record in records] == ["sandbox.violated", "journal.repaired", "sandbox.violated"]
    assert dict(records[1].fields) == {"segment": path.name, "removed_bytes": 6}


async def test_followers_hear_of_records_until_they_leave(tmp_path: Path) -> None:
    heard: list[int] = []
    recorder = make(tmp_path)
    leave = recorder.subscribe(lambda: heard.append(recorder.readable.link.seq))
    await recorder.record(violated())
    leave()
    await recorder.record(violated())
    assert heard == [2]
    await recorder.close()


async def test_documents_are_stored_by_digest(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    digest = recorder.store(b"document")
    (pack,) = (tmp_path / "documents").iterdir()
    assert pack.read_bytes() == f"{digest} 8\ndocument\n".encode()
    await recorder.close()


async def test_a_journal_in_use_is_refused_and_freed_by_close(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    with pytest.raises(AuditUnavailable, match="in use"):
        make(tmp_path)
    await recorder.close()
    await make(tmp_path).close()


async def test_a_journal_signed_with_another_key_is_not_gone_on_with(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    await recorder.close()
    shutil.rmtree(tmp_path / "keys")  # another is made at the next start
    for _ in range(2):
        with pytest.raises(AuditUnavailable, match=r"was signed with the key .* put back the one") as caught:
            make(tmp_path)
        assert caught.value.reason == "audit_key_invalid"
