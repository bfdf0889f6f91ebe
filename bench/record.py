"""What it costs to have an event on record, for both durabilities, beside a file and SQLite; its share of an Execute.

The events are those of real executions of the node that is measured, recorded again. Ways take turns, execution by
execution; each starts with the same lines and waits until they are as durable as it promises. Called by `__main__`.
"""

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from bench import report
from bench.host import say
from bench.ours import Ours
from sandboxd import event
from sandboxd.audit.line import decode
from sandboxd.audit.recorder import Durability, Recorder
from sandboxd.audit.segment import segments
from sandboxd.event import Event
from sandboxd.sink.base import Record

CALLERS = 32
KINDS = {kind.rule: kind for kind in vars(event).values() if isinstance(kind, type) and kind in Event.__subclasses__()}
DOCUMENT = b'{"type":"execution.start"}'.ljust(1500)
DOCUMENT_STORED = "a document"
DOCUMENTS = 2  # of an Execute: what was asked for, and what policy was asked


@dataclass(slots=True)
class Way:
    """Milliseconds for the events of one execution, each waited for before the next."""

    name: str
    record: Callable[[], Awaitable[None]]
    times: list[float] = field(default_factory=list)


def records(nodes: Sequence[Ours], rounds: int) -> None:
    """Tables."""
    for node in nodes:
        runs = [node.execute(["/bin/true"])[0] for _ in range(rounds)]
        found = _lines(node, runs[-1].execution_id)
        execute = report.percentile([run.total for run in runs], 0.5)
        asyncio.run(_measured(node.name, found, execute, rounds))


def _lines(node: Ours, execution_id: str) -> list[bytes]:
    newest = segments(node.daemon.state_dir / "journal")[-1]
    wanted = f'"execution_id":"{execution_id}"'.encode()
    return [line for line in newest.path.read_bytes().splitlines() if wanted in line]


async def _measured(name: str, lines: list[bytes], execute: float, rounds: int) -> None:
    events = [_event(decode(line)) for line in lines]
    with tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as place:
        directory = Path(place)
        recorders = {
            durability: Recorder.open(directory / durability, "node", "boot", durability)
            for durability in _DURABILITIES
        }
        ways = [
            Way("file, write", _file(directory / "file", lines, synced=False)),
            Way("SQLite, not synced", _sqlite(directory / "sqlite", lines, "OFF")),
            Way("journal, write", _journal(recorders["write"], events)),
            Way("file, write and fdatasync", _file(directory / "synced", lines, synced=True)),
            Way("SQLite, synced", _sqlite(directory / "sqlite-synced", lines, "FULL")),
            Way("journal, fsync", _journal(recorders["fsync"], events)),
            Way(f"journal, fsync, {CALLERS} callers", _together(recorders["fsync"], events)),
            Way(DOCUMENT_STORED, _documents(recorders["write"], len(events))),
        ]
        for number in range(-3, rounds):
            for way in ways:
                began = time.perf_counter()
                await way.record()
                if number >= 0:
                    way.times.append((time.perf_counter() - began) * 1000)
        for recorder in recorders.values():
            await recorder.close()
    _tell(name, ways, len(events), execute)


_DURABILITIES: tuple[Durability, ...] = ("write", "fsync")


def _tell(name: str, ways: Sequence[Way], events: int, execute: float) -> None:
    each = {way.name: 1000 * report.percentile(way.times, 0.5) / events for way in ways}
    each[f"journal, fsync, {CALLERS} callers"] /= CALLERS
    rows = []
    floor = 0.0
    for way in ways[:-1]:
        floor = each[way.name] if way.name.startswith("file") else floor
        rows.append((way.name, f"{each[way.name]:.0f}", f"{1e6 / each[way.name]:.0f}", f"{each[way.name] / floor:.2f}"))
    say(f"### An event on record: {name}, the {events} events of an Execute of `/bin/true`\n")
    report.table(("", "microseconds", "events/s", "/ file"), rows)
    document = each[DOCUMENT_STORED]
    shares = [
        (f"`{durability}`", f"{total:.3f}", f"{total / execute:.1%}")
        for durability in _DURABILITIES
        if (total := (each[f"journal, {durability}"] * events + document * DOCUMENTS) / 1000)
    ]
    say(f"### Its share of an Execute of {execute:.2f} ms: events and documents (milliseconds)\n")
    report.table(("durability", "audit", "share"), shares)
    say(f"A document of {len(DOCUMENT)} bytes takes {document:.0f} microseconds; an Execute has {DOCUMENTS}.\n")


def _event(record: Record) -> Event:
    kind = KINDS[record.rule]
    values = dict(record.ids) | dict(record.fields)
    return kind(**{one.name: values[one.name] for one in fields(kind) if one.name in values})  # type: ignore[arg-type]


def _journal(recorder: Recorder, events: Sequence[Event]) -> Callable[[], Awaitable[None]]:
    async def record() -> None:
        for one in events:
            await recorder.record(one)

    return record


def _together(recorder: Recorder, events: Sequence[Event]) -> Callable[[], Awaitable[None]]:
    async def record() -> None:
        await asyncio.gather(*(_journal(recorder, events)() for _ in range(CALLERS)))

    return record


def _documents(recorder: Recorder, count: int) -> Callable[[], Awaitable[None]]:
    async def record() -> None:
        for _ in range(count):
            recorder.store(DOCUMENT)

    return record


def _file(path: Path, lines: Sequence[bytes], *, synced: bool) -> Callable[[], Awaitable[None]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def record() -> None:
        for line in lines:
            os.write(descriptor, line + b"\n")
            if synced:
                os.fdatasync(descriptor)

    return record


def _sqlite(path: Path, lines: Sequence[bytes], synchronous: str) -> Callable[[], Awaitable[None]]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={synchronous}")
    database.execute("CREATE TABLE record (seq INTEGER PRIMARY KEY, line BLOB)")

    async def record() -> None:
        for line in lines:
            database.execute("INSERT INTO record (line) VALUES (?)", (line,))

    return record
