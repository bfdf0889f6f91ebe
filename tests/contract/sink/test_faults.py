"""Whatever a receiver does for a while, in the end it has every record, in order for each execution."""

import asyncio
from pathlib import Path

import pytest

from sandboxd.audit.recorder import Recorder
from sandboxd.event import SandboxViolated
from tests.fakes.events import made
from tests.sink_rows import ROWS, Sending, sending

EVENTS = 600
EXECUTIONS = 20
HURRY = 20.0


async def record(recorder: Recorder, count: int) -> None:
    for number in range(count):
        await recorder.record(made(SandboxViolated, execution_id=f"{number % EXECUTIONS:032x}", detail=str(number)))


async def until_all(row: Sending) -> None:
    async with asyncio.timeout(60):
        while row.feed.status.lag_records:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", ROWS)
async def test_after_each_fault_every_record_is_there_in_order(name: str, tmp_path: Path) -> None:
    recorder = Recorder.open(tmp_path, "node", "b" * 32, "write")
    async with sending(recorder, [name], tmp_path, HURRY) as rows:
        row = rows[name]
        for fault in ("down", "resetting", "500"):
            await record(recorder, EVENTS // 6)
            row.receiver.become(fault)
            await record(recorder, EVENTS // 6)
            await asyncio.sleep(0.3)
            row.receiver.become("none")
            await until_all(row)
        count = recorder.readable.link.seq
        await asyncio.sleep(0.1)  # a pipe's reader looks this often
        told = row.receiver.told()
    await recorder.close()
    assert (told["count"], told["last"]) == (count, count)
    assert told["disorder"] == 0
    assert row.feed.status.lost_records == row.feed.status.refused_records == 0
    assert name == "stdout" or row.feed.status.retries > 0
