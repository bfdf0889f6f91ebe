"""Hostile events of every kind: onto journal lines, back, and through the sink `falcosidekick` to the port's checks.

The port is a process, killed and started again at random. Held against it: each line is the next of the chain, and is
written the same again; the port accepted each event at least once, in order for each execution; what its webhook passed
on is what it was sent. Used by `make soak`.
"""

import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from aiohttp import web

from sandboxd.audit.line import ORIGIN, Link, body, check, decode, encode
from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.sink.base import Record, SinkUnavailable
from sandboxd.sink.falco_event import falco_event
from sandboxd.sink.falcosidekick import FalcosidekickSink
from tests.falcosidekick_server import Entry, RunningPort, entries, falcosidekick_port, free_port
from tests.hostile import KINDS, hostile

BATCH = 256
EXECUTIONS = 40
RETRY_SECONDS = 0.05
START_NS = 1_767_225_600_000_000_000


@dataclass
class Outcome:
    """`left` says what is wrong; without any, the run was good."""

    events: int = 0
    bytes: int = 0
    kills: int = 0
    retries: int = 0
    accepted: int = 0
    passed_on: int = 0
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        twice = self.accepted - self.events
        figures = (
            f"falco: {self.events} events of {len(KINDS)} kinds, {self.bytes} bytes of journal, {self.seconds:.0f} s; "
            f"port killed {self.kills} times, {self.retries} retries, {twice} accepted twice, "
            f"{self.passed_on} passed on to its webhook"
        )
        return [figures, *self.left[:20]]


def soak(events: int, kills: int, seed: int = 0) -> Outcome:
    return asyncio.run(_soak(events, kills, seed))


async def _soak(events: int, kills: int, seed: int) -> Outcome:
    outcome = Outcome(events=events)
    begun = time.monotonic()
    chance = random.Random(seed)
    deadly = sorted(chance.sample(range(1, max(events // BATCH, 2)), min(kills, max(events // BATCH - 1, 1))))
    port = free_port()
    sent: dict[int, Record] = {}
    with tempfile.TemporaryDirectory() as directory:
        ledger = Path(directory) / "ledger"
        async with _webhook() as (address, passed):
            await _feed(outcome, chance, deadly, port, ("--ledger", str(ledger), "--webhook", address), sent)
            await _settled(passed)
        _compare(outcome, sent, entries(ledger), passed)
    outcome.seconds = time.monotonic() - begun
    return outcome


async def _feed(
    outcome: Outcome,
    chance: random.Random,
    deadly: list[int],
    port: int,
    options: tuple[str, ...],
    sent: dict[int, Record],
) -> None:
    settings = FalcosidekickSettings(type="falcosidekick", url=f"http://127.0.0.1:{port}", connections=8)
    sink = FalcosidekickSink(settings)
    stream = _records(outcome, chance)
    with contextlib.ExitStack() as stack:
        running = await asyncio.to_thread(stack.enter_context, falcosidekick_port(*options, port=port))
        for number, batch in enumerate(iter(lambda: list(islice(stream, BATCH)), [])):
            sent.update((record.seq, record) for record in batch)
            if number in deadly:
                killing = asyncio.create_task(_kill(running, chance.uniform(0, 0.05)))
                await _deliver(outcome, sink, batch, once=True)
                await killing
                outcome.kills += 1
                running = await asyncio.to_thread(stack.enter_context, falcosidekick_port(*options, port=port))
            await _deliver(outcome, sink, batch)
        await sink.close()
        await asyncio.sleep(1)  # for what the port has still to pass on


async def _kill(running: RunningPort, seconds: float) -> None:
    await asyncio.sleep(seconds)
    running.kill()


async def _deliver(outcome: Outcome, sink: FalcosidekickSink, batch: list[Record], *, once: bool = False) -> None:
    while True:
        try:
            await sink.send(batch)
        except SinkUnavailable:
            outcome.retries += 1
            if once:
                return
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


def _records(outcome: Outcome, chance: random.Random) -> Iterator[Record]:
    """The journal of that many hostile events, each line proved. Of some executions there are many."""
    executions = [f"{number:032x}" for number in range(EXECUTIONS)]
    link = ORIGIN
    for _ in range(outcome.events):
        event = hostile(chance, chance.choice(KINDS))
        content = body(event)
        if chance.random() < 0.8:
            ids = content["ids"]
            assert isinstance(ids, dict)
            ids["execution_id"] = chance.choice(executions)
        time_ns = START_NS + link.seq
        line = encode(content, link, "b0" * 16, "node-1", time_ns)[:-1]
        outcome.bytes += len(line) + 1
        record = decode(line)
        if _again(record, link, time_ns) != line:
            outcome.left.append(f"record {record.seq} is not written the same again")
        link = check(link, line)
        yield record


def _again(record: Record, link: Link, time_ns: int) -> bytes:
    content: dict[str, object] = {
        "rule": record.rule,
        "priority": record.priority,
        "ids": dict(record.ids),
        "fields": dict(record.fields),
    }
    return encode(content, link, record.boot, record.node, time_ns)[:-1]


def _compare(outcome: Outcome, sent: dict[int, Record], accepted: list[Entry], passed: list[bytes]) -> None:
    outcome.accepted = len(accepted)
    outcome.passed_on = len(passed)
    if missing := sent.keys() - {entry.seq for entry in accepted}:
        outcome.left.append(f"{len(missing)} events were never accepted, the first is {min(missing)}")
    first = {entry.seq: at for at, entry in reversed(list(enumerate(accepted)))}
    latest: dict[str, int] = {}
    for seq, record in sorted(sent.items()):
        execution = dict(record.ids)["execution_id"]
        if first.get(seq, 0) < latest.get(execution, 0):
            outcome.left.append(f"event {seq} was accepted before one that came before it in its execution")
        latest[execution] = first.get(seq, 0)
    for raw in passed:
        event = json.loads(raw)
        record = sent[event["output_fields"]["audit.seq"]]
        if event["output_fields"] != falco_event(record)["output_fields"]:
            outcome.left.append(f"event {record.seq} was passed on otherwise than it was sent")
    if not outcome.kills and len(passed) != len(accepted):
        outcome.left.append(f"of {len(accepted)} accepted events {len(passed)} were passed on")


async def _settled(passed: list[bytes]) -> None:
    """Until nothing more has come for a second."""
    seen = -1
    while seen != len(passed):
        seen = len(passed)
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def _webhook() -> AsyncIterator[tuple[str, list[bytes]]]:
    passed: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        passed.append(await request.read())
        return web.Response()

    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/", passed
    finally:
        await runner.cleanup()
