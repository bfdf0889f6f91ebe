import os
import time
from pathlib import Path

import pytest

from sandboxd.audit.history import records
from sandboxd.audit.line import timestamp
from sandboxd.audit.recorder import Recorder
from sandboxd.event import DaemonStopped, PolicyDecided

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def decided(verdict: str) -> PolicyDecided:
    return PolicyDecided(
        "t", "uid:0", "e", "s", "r1", "", "execution.start", verdict, ("a", "b"), "0" * 64, "rego", False
    )


async def write(state: Path, count: int = 40) -> None:
    moments = iter(range(START, START + 10_000 * SECOND, SECOND))
    recorder = Recorder.open(state, "n", "b", "write", segment_bytes=2048, clock_ns=lambda: next(moments))
    for number in range(count):
        await recorder.record(decided(f"v{number}"))
        await recorder.record(DaemonStopped("", "", "", "", "", "", '"rule":"policy.decided"'))
    await recorder.close()


def verdicts(state: Path, since: str = "") -> list[object]:
    return [dict(record.fields)["verdict"] for record in records(state / "journal", PolicyDecided.rule, since)]


async def test_records_of_one_rule_come_in_order_over_all_segments_from_the_moment_on(tmp_path: Path) -> None:
    await write(tmp_path)
    assert len(list((tmp_path / "journal").glob("*.jsonl"))) > 3
    assert verdicts(tmp_path) == [f"v{number}" for number in range(40)]
    assert verdicts(tmp_path, timestamp(START + 70 * SECOND)) == [f"v{number}" for number in range(35, 40)]
    assert verdicts(tmp_path, timestamp(time.time_ns())) == []


async def test_damaged_record_is_named_and_a_link_is_not_followed(tmp_path: Path) -> None:
    await write(tmp_path)
    first, second, *_ = sorted((tmp_path / "journal").glob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b'"v":1', b'"v":2', 1))
    with pytest.raises(ValueError, match=rf"{first.name}: schema version 2"):
        verdicts(tmp_path)
    first.unlink()
    first.symlink_to(second)
    with pytest.raises(OSError, match="symbolic links"):
        verdicts(tmp_path)
    first.unlink()
    os.mkfifo(first)
    with pytest.raises(PermissionError, match="not a regular file"):
        verdicts(tmp_path)


async def test_linked_and_absent_journal_are_refused(tmp_path: Path) -> None:
    await write(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal").symlink_to(tmp_path / "journal")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        verdicts(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        verdicts(tmp_path / "absent")
