"""Receivers for sinks that fail as they are told to, and keep count of what reached them: `python -m` this module.

A process of its own, so that what it costs delays no sink. Commands come line by line on standard input, answers go to
standard output. It is none of the real receivers: those have tests of their own. Used by the contract of sinks and by
`bench.soak`, through `tests.sink_rows`.
"""

import asyncio
import contextlib
import json
import random
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.fakes.syslog import RESET, split

FAULTS = ("down", "slow", "resetting", "500", "429", "garbage")
SLOW_SECONDS = 0.05
GARBAGE = bytes(range(256)) * 8
STATUS = {"500": b"500 Internal Server Error", "429": b"429 Too Many Requests\r\nRetry-After: 1"}
Found = tuple[int, str]  # sequence number and execution


def falco(body: bytes) -> Iterable[Found]:
    fields = json.loads(body)["output_fields"]
    yield fields["audit.seq"], fields.get("correlation.id", "")


def cloudevents(body: bytes) -> Iterable[Found]:
    batch = json.loads(body)
    for event in batch if isinstance(batch, list) else [batch]:
        yield int(event["sequence"]), json.dumps(event["data"]).partition('"execution_id": "')[2][:32]


def otlp(body: bytes) -> Iterable[Found]:
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                values = {item.key: item.value for item in record.attributes}
                execution = values["sandboxd.execution_id"].string_value if "sandboxd.execution_id" in values else ""
                yield values["sandboxd.journal.seq"].int_value, execution


def syslog(body: bytes) -> Iterable[Found]:
    for message in split(body):
        yield from falco(message[message.index(b'] {"') + 2 :])


READERS: dict[str, Callable[[bytes], Iterable[Found]]] = {
    "falco": falco,
    "cloudevents": cloudevents,
    "otlp": otlp,
    "syslog": syslog,
}


@dataclass
class Ledger:
    """What came, and whether each execution's records came in order when they came first."""

    seen: set[int] = field(default_factory=set)
    again: int = 0
    disorder: int = 0
    last: dict[str, int] = field(default_factory=dict)

    def add(self, found: Iterable[Found]) -> None:
        for seq, execution in found:
            if seq in self.seen:
                self.again += 1
                continue
            self.seen.add(seq)
            self.disorder += seq < self.last.get(execution, 0)
            self.last[execution] = max(seq, self.last.get(execution, 0))

    def told(self) -> dict[str, int]:
        most = max(self.seen, default=0)
        return {"count": len(self.seen), "last": most, "again": self.again, "disorder": self.disorder}


class Receiver:
    """One port, at which `fault` decides what happens."""

    def __init__(self, kind: str) -> None:
        self.ledger = Ledger()
        self.fault = "none"
        self.port = 0
        self._read = READERS[kind]
        self._serve = self._syslog if kind == "syslog" else self._http
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._chance = random.Random(1)

    async def become(self, fault: str) -> None:
        self.fault = fault
        if fault == "down" and self._server is not None:
            self._server.close()
            self._server = None
        elif fault != "down" and self._server is None:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = listener.getsockname()[1]
            self._server = await asyncio.start_server(self._connected, sock=listener, limit=1 << 26)
        for writer in tuple(self._writers):
            if fault in ("down", "resetting"):
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            fault = self.fault
            if fault == "resetting" and self._chance.random() < 0.5:
                self._reset(writer)
                return
            body = await reader.readexactly(length)
            if fault == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            if fault == "garbage":
                writer.write(GARBAGE)
                return
            if fault in STATUS:
                writer.write(b"HTTP/1.1 " + STATUS[fault] + b"\r\nContent-Length: 0\r\n\r\n")
                continue
            if body:
                self.ledger.add(self._read(body))
            if fault == "resetting":  # it has it, and its answer does not arrive
                self._reset(writer)
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def _syslog(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Syslog has no answers: each fault but being slow is breaking off in another way."""
        fault, body = self.fault, b""
        if fault == "garbage":
            writer.write(GARBAGE)
        if fault in ("resetting", "garbage", "500", "429"):
            await reader.read(1000 if fault != "429" else 1)
            if fault != "garbage" or self._chance.random() < 0.5:
                self._reset(writer)
            return
        while data := await reader.read(1 << 16):
            body += data
            if fault == "slow":
                await asyncio.sleep(SLOW_SECONDS)
        self.ledger.add(self._read(body))

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        made: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()


async def main() -> None:
    receivers: dict[str, Receiver] = {}
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        name, verb, *more = json.loads(line)
        answer: object = None
        if verb == "open":
            receivers[name] = Receiver(*more)
            await receivers[name].become("none")
            answer = receivers[name].port
        elif verb == "become":
            await receivers[name].become(*more)
        else:
            answer = receivers[name].ledger.told()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
