from pathlib import Path

import pytest

from sandboxd import recovery
from sandboxd.audit.recorder import Recorder
from sandboxd.event import DaemonStarted, Event, ExecutionEnded, ExecutionRefused, ExecutionRequested
from sandboxd.model import EndReason

NOBODY = ("", "", "", "", "", "")


def ids(execution_id: str) -> tuple[str, str, str, str, str, str]:
    return ("local", "uid:1", execution_id, f"s-{execution_id}", "r1", "t" * 32)


def requested(execution_id: str) -> ExecutionRequested:
    command = '"rule":"execution.ended"'
    return ExecutionRequested(*ids(execution_id), "default", command, "", "", "", "", "", "", "", (), (), "Execute")


def ended(execution_id: str) -> ExecutionEnded:
    return ExecutionEnded(*ids(execution_id), "EXITED", 0, None, 0.1, 0.1, 1, 0, 0, (), ())


def refused(execution_id: str) -> ExecutionRefused:
    return ExecutionRefused(*ids(execution_id), "rate", "no")


STARTED = DaemonStarted(*NOBODY, "1", "root", 0, ())


async def journal(directory: Path, *boots: tuple[Event, ...], segment_bytes: int = 1 << 20) -> Path:
    for number, events in enumerate(boots):
        recorder = Recorder.open(directory, "node", f"boot{number}", "write", segment_bytes=segment_bytes)
        for event in events:
            await recorder.record(event)
        await recorder.close()
    return directory / "journal"


def left(path: Path) -> list[str]:
    return [execution.execution_id for execution in recovery.open_executions(path)]


def test_first_start_finds_nothing(tmp_path: Path) -> None:
    assert recovery.open_executions(tmp_path / "journal") == ()


async def test_executions_without_an_end_are_open(tmp_path: Path) -> None:
    events = (STARTED, requested("a"), requested("b"), requested("c"), ended("a"), refused("b"))
    assert left(await journal(tmp_path, events)) == ["c"]


async def test_what_a_start_follows_is_closed(tmp_path: Path) -> None:
    assert left(await journal(tmp_path, (STARTED, requested("a")), (STARTED, requested("b")))) == ["b"]


async def test_daemon_that_died_before_its_start_was_recorded_hides_nothing(tmp_path: Path) -> None:
    boots = (STARTED, requested("a"), requested("b")), (ended("a"),)
    assert left(await journal(tmp_path, *boots)) == ["b"]


async def test_open_executions_are_found_across_segments(tmp_path: Path) -> None:
    many = [event for number in range(40) for event in (requested(f"x{number}"), ended(f"x{number}"))]
    path = await journal(tmp_path, (STARTED, requested("a"), *many, requested("b")), segment_bytes=4096)
    assert len(list(path.glob("*.jsonl"))) > 2
    assert left(path) == ["a", "b"]


async def test_closing_event_carries_the_ids_of_its_execution(tmp_path: Path) -> None:
    (execution,) = recovery.open_executions(await journal(tmp_path, (requested("a"),)))
    event = recovery.closing_event(execution)
    assert (event.tenant, event.execution_id, event.sandbox_id) == ("local", "a", "s-a")
    assert (event.end_reason, event.detail) == (EndReason.RUNTIME_FAILED, recovery.RESTARTED)
    assert left(await journal(tmp_path, (event,))) == []


async def test_torn_last_line_is_no_obstacle(tmp_path: Path) -> None:
    path = await journal(tmp_path, (requested("a"),))
    (segment,) = path.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"rule":"execution.ended"')
    assert left(path) == ["a"]


async def test_damaged_record_is_an_error(tmp_path: Path) -> None:
    path = await journal(tmp_path, (requested("a"),))
    (segment,) = path.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'"rule":"execution.ended" but not JSON\n')
    with pytest.raises(OSError, match="damaged"):
        recovery.open_executions(path)
