"""Every sink that is sent to, with a receiver that can be made to fail. A further one joins with one row in ROWS.

`sending` runs rows beside each other on one journal; whatever fails, each has to end with every record. Used by the
contract of sinks, small, and by `bench.soak`, large.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandboxd.audit.feed import LINGER_SECONDS, Feed
from sandboxd.audit.recorder import Recorder
from sandboxd.settings.sinks.base import SinkSettings
from sandboxd.settings.sinks.cloudevents import CloudEventsSettings
from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.settings.sinks.file import FileSettings
from sandboxd.settings.sinks.ocsf import OcsfSettings
from sandboxd.settings.sinks.otlp import OtlpSettings
from sandboxd.settings.sinks.syslog import SyslogSettings
from sandboxd.sink import cloudevents, falcosidekick, file, ocsf, otlp, stdout, syslog
from sandboxd.sink.base import Sink
from tests.sink_receiver import Found, Ledger, falco

CHECKOUT = Path(__file__).resolve().parents[1]


class Receiver(Protocol):
    def become(self, fault: str) -> None:
        """One of `sink_receiver.FAULTS`, or none: then it is well."""

    def told(self) -> dict[str, int]:
        """`count` of different records, the `last` of them, those that came `again`, and `disorder`."""


class Process:
    """`tests.sink_receiver`, and what is said to it."""

    def __init__(self) -> None:
        command = (sys.executable, "-m", "tests.sink_receiver")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT)

    def ask(self, *words: str) -> object:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("it has no pipes")
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(20)


@dataclass
class Port:
    """A receiver on loopback."""

    process: Process
    name: str

    def become(self, fault: str) -> None:
        self.process.ask(self.name, "become", fault)

    def told(self) -> dict[str, int]:
        told = self.process.ask(self.name, "tell")
        return told if isinstance(told, dict) else {}


@dataclass
class Directory:
    """Where a file is written: it goes away, or becomes one that nothing may be written to."""

    path: Path
    read: Callable[[bytes], Iterable[Found]]

    def become(self, fault: str) -> None:
        away = self.path.parent.with_name("away")
        if away.exists():
            away.rename(self.path.parent)
        self.path.parent.chmod(0o700 if fault == "none" else 0o777)
        if fault in ("down", "resetting"):
            self.path.parent.rename(away)

    def told(self) -> dict[str, int]:
        ledger = Ledger()
        older = sorted(self.path.parent.glob(f"{self.path.name}.*"), key=lambda path: -int(path.suffix[1:]))
        for path in (*older, self.path):
            for line in path.read_bytes().splitlines():
                ledger.add(self.read(line))
        return ledger.told()


@dataclass
class Pipe:
    """Somebody who reads a pipe, slowly or not at all."""

    reader: int
    fault: str = "none"
    ledger: Ledger = field(default_factory=Ledger)
    rest: bytes = b""

    def become(self, fault: str) -> None:
        self.fault = fault

    def told(self) -> dict[str, int]:
        return self.ledger.told()

    async def read(self) -> None:
        os.set_blocking(self.reader, False)
        while True:
            await asyncio.sleep(0.05)
            if self.fault in ("none", "slow"):
                with contextlib.suppress(BlockingIOError):
                    while data := os.read(self.reader, 1 << 12 if self.fault == "slow" else 1 << 20):
                        *lines, self.rest = (self.rest + data).split(b"\n")
                        for line in lines:
                            self.ledger.add(falco(line))
                        if self.fault == "slow":
                            break
                        await asyncio.sleep(0)


def _in_ocsf(line: bytes) -> Iterable[Found]:
    event = json.loads(line)
    journal = json.loads(event["raw_data"]) if "raw_data" in event else event["unmapped"]["journal"]
    yield journal["seq"], journal.get("ids", {}).get("execution_id", "")


Opened = tuple[SinkSettings, Sink, Receiver]
Row = Callable[[str, Process, Path, contextlib.AsyncExitStack], Opened]


def _falcosidekick(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    url = f"http://127.0.0.1:{process.ask(name, 'open', 'falco')}"
    settings = FalcosidekickSettings(type="falcosidekick", name=name, required=True, url=url)
    return settings, falcosidekick.create(settings, "node"), Port(process, name)


def _cloudevents(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    url = f"http://127.0.0.1:{process.ask(name, 'open', 'cloudevents')}"
    settings = CloudEventsSettings(type="cloudevents", name=name, required=True, url=url, mode="batched")
    return settings, cloudevents.create(settings, "node"), Port(process, name)


def _otlp(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    url = f"http://127.0.0.1:{process.ask(name, 'open', 'otlp')}"
    settings = OtlpSettings(type="otlp", name=name, required=True, url=url)
    return settings, otlp.create(settings, "node"), Port(process, name)


def _syslog(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    url = f"tcp://127.0.0.1:{process.ask(name, 'open', 'syslog')}"
    settings = SyslogSettings(type="syslog", name=name, required=True, url=url)
    return settings, syslog.create(settings, "node"), Port(process, name)


def _file(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    path = directory / name / "events.jsonl"
    path.parent.mkdir(mode=0o700)
    settings = FileSettings(type="file", name=name, required=True, path=str(path), rotate_bytes=1 << 20, keep=1000)
    return settings, file.create(settings, "node"), Directory(path, falco)


def _ocsf(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    path = directory / name / "events.jsonl"
    path.parent.mkdir(mode=0o700)
    settings = OcsfSettings(type="ocsf", name=name, required=True, path=str(path))
    return settings, ocsf.create(settings, "node"), Directory(path, _in_ocsf)


def _stdout(name: str, process: Process, directory: Path, stack: contextlib.AsyncExitStack) -> Opened:
    reader, writer = os.pipe()
    sink, pipe = stdout.StdoutSink(writer), Pipe(reader)
    os.close(writer)
    reading = asyncio.create_task(pipe.read())
    stack.callback(reading.cancel)
    return SinkSettings(type="stdout", name=name, required=True), sink, pipe


ROWS: dict[str, Row] = {
    "stdout": _stdout,
    "file": _file,
    "ocsf": _ocsf,
    "syslog": _syslog,
    "otlp": _otlp,
    "cloudevents": _cloudevents,
    "falcosidekick": _falcosidekick,
}


@dataclass(frozen=True, slots=True)
class Sending:
    """One row under way."""

    feed: Feed
    receiver: Receiver


@contextlib.asynccontextmanager
async def sending(
    recorder: Recorder, rows: Iterable[str], directory: Path, hurry: float
) -> AsyncIterator[dict[str, Sending]]:
    """Those rows beside each other. Waiting before another attempt is `hurry` times as short."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds if seconds <= LINGER_SECONDS else seconds / hurry)

    async with contextlib.AsyncExitStack() as stack:
        process = Process()
        stack.callback(process.close)
        running = {}
        for name in rows:
            settings, sink, receiver = ROWS[name](name, process, directory, stack)
            feed = Feed(recorder, sink, settings, directory / "cursors", sleep=sleep)
            task = asyncio.create_task(feed.run())
            stack.push_async_callback(_end, task)
            running[name] = Sending(feed, receiver)
        yield running


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
