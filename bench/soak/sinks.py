"""Every sink beside every other on one journal, while each in turn has a receiver that fails in every way.

Held against it: after recovery each has each sequence number at least once, and those of an execution in order; nothing
was lost or refused; and what one receiver does delays no other sink. Real sinks, feeds and journal; the receivers are
`tests.sink_receiver`. Called by `python -m bench.soak sinks`.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandboxd.audit.recorder import Recorder
from sandboxd.event import SandboxViolated
from tests.fakes.events import made
from tests.sink_receiver import FAULTS
from tests.sink_rows import ROWS, Sending, sending

EXECUTIONS = 50
HURRY = 10.0  # waits between attempts are so many times as short: 0.05 s at first, 6 s at most
FAULT_SECONDS = 3.0
CALM_SECONDS = 3.0  # between two sinks' turns: to compare with
WELL_SECONDS = 1.0  # of lag: then a sink has caught up
SAMPLE_SECONDS = 0.1
BATCH = 10


@dataclass
class Lags:
    """Seconds by which sinks were behind, sampled: while all were well, and of the well ones while another was not."""

    calm: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    events: int = 0
    seconds: float = 0.0
    turns: int = 0
    recovered: list[float] = field(default_factory=list)
    lags: Lags = field(default_factory=Lags)
    sinks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        rate = self.events / self.seconds
        yield f"sinks     {self.events} records in {self.seconds:.0f} s ({rate:.0f}/s), {self.turns} faults"
        yield f"  caught up after a fault of {FAULT_SECONDS:g} s: {_spread(self.recovered)}"
        yield f"  lag of a sink while all are well: {_spread(self.lags.calm)}"
        yield f"  lag of the well ones while another fails: {_spread(self.lags.beside)}"
        yield from self.sinks
        yield from (f"  WRONG: {line}" for line in self.wrong)


def soak(events: int, per_second: float) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="sandboxd-sinks-") as directory:
        return asyncio.run(_soak(Path(directory), events, per_second))


async def _soak(directory: Path, events: int, per_second: float) -> Outcome:
    outcome, begun = Outcome(), time.monotonic()
    recorder = Recorder.open(directory, "node", "b" * 32, "write")
    try:
        async with sending(recorder, ROWS, directory, HURRY) as rows:
            faults = asyncio.create_task(_faults(rows, outcome))
            await _record(recorder, events, per_second)
            await faults
            await _settled(recorder, rows)
            await asyncio.sleep(1)  # a pipe's reader is somebody else
            outcome.events = recorder.readable.link.seq
            outcome.seconds = time.monotonic() - begun
            for name, row in rows.items():
                _judge(name, row, outcome)
    finally:
        await recorder.close()
    return outcome


async def _record(recorder: Recorder, events: int, per_second: float) -> None:
    begun = time.monotonic()
    for first in range(0, events, BATCH):
        for number in range(first, min(first + BATCH, events)):
            await recorder.record(made(SandboxViolated, execution_id=f"{number % EXECUTIONS:032x}", detail=str(number)))
        await asyncio.sleep(max(0.0, begun + (first + BATCH) / per_second - time.monotonic()))


async def _faults(rows: dict[str, Sending], outcome: Outcome) -> None:
    for name, row in rows.items():
        for fault in FAULTS:
            await _sample(rows, None, outcome.lags.calm, CALM_SECONDS / len(FAULTS))
            row.receiver.become(fault)
            await _sample(rows, name, outcome.lags.beside, FAULT_SECONDS)
            row.receiver.become("none")
            outcome.turns += 1
            since = time.monotonic()
            while row.feed.status.lag_seconds > WELL_SECONDS or row.feed.status.failures:
                await _sample(rows, name, outcome.lags.beside, SAMPLE_SECONDS)
            outcome.recovered.append(time.monotonic() - since)


async def _sample(rows: dict[str, Sending], failing: str | None, into: list[float], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        into.extend(row.feed.status.lag_seconds for name, row in rows.items() if name != failing)
        await asyncio.sleep(SAMPLE_SECONDS)


async def _settled(recorder: Recorder, rows: dict[str, Sending]) -> None:
    while any(row.feed.confirmed < recorder.readable.link.seq for row in rows.values()):
        await asyncio.sleep(SAMPLE_SECONDS)


def _judge(name: str, row: Sending, outcome: Outcome) -> None:
    told, status = row.receiver.told(), row.feed.status
    outcome.sinks.append(
        f"  {name:<14} {told['count']} of {outcome.events} records, {told['again']} of them again, "
        f"{told['disorder']} out of order, {status.retries} attempts refused"
    )
    if (told["count"], told["last"]) != (outcome.events, outcome.events):
        outcome.wrong.append(f"{name} has {told['count']} records, the last is {told['last']}")
    if told["disorder"] or status.lost_records or status.refused_records:
        outcome.wrong.append(
            f"{name}: {told['disorder']} out of order, {status.lost_records} lost, {status.refused_records} refused"
        )


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "never"
    ordered = sorted(seconds)
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"median {middle:.2f} s, 99 % {late:.2f} s, most {ordered[-1]:.2f} s"
