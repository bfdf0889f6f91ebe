"""Reads the messages of one Execute in order and gathers them into a whole. No I/O; shared by both clients."""

import dataclasses
from typing import assert_never

from sandboxd.client import convert
from sandboxd.client.errors import RuntimeFailed
from sandboxd.client.failure import Progress
from sandboxd.client.model import Accepted, Chunk, Enforcement, Event, Result, Stream
from sandboxd.client.node import Logs
from sandboxd.rpc.v1 import sandbox_pb2


class EventReader:
    """Turns messages into events; events that this version does not know are passed over."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._enforcement = Enforcement()
        self._ended = False

    def read(self, message: sandbox_pb2.ExecuteEvent) -> Event | None:
        self._progress.started = True
        match message.WhichOneof("event"):
            case "accepted":
                accepted = convert.accepted(message.accepted)
                self._progress.execution_id = accepted.execution_id
                self._enforcement = accepted.enforcement
                return accepted
            case "chunk":
                return convert.chunk(message.chunk)
            case "result":
                self._ended = True
                return convert.result(message.result, self._enforcement)
            case _:
                return None

    def finish(self) -> None:
        """`RuntimeFailed` if the stream closed without a result: silence is never success."""
        if not self._ended:
            raise RuntimeFailed(
                "the daemon closed the stream without a result; see the node's log",
                reason="no_result",
                execution_id=self._progress.execution_id,
            )


class Output:
    """Collects the pieces of both streams."""

    def __init__(self) -> None:
        self._stdout = bytearray()
        self._stderr = bytearray()

    def add(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            (self._stdout if chunk.stream is Stream.STDOUT else self._stderr).extend(chunk.data)

    def logs(self) -> Logs:
        return Logs(bytes(self._stdout), bytes(self._stderr))


class Whole:
    """Gathers the events of one execution into the `Result` that `run` gives back."""

    def __init__(self) -> None:
        self._output = Output()
        self._result: Result | None = None

    def add(self, event: Event) -> None:
        match event:
            case Chunk():
                self._output.add(event)
            case Result():
                self._result = event
            case Accepted():
                pass
            case _:
                assert_never(event)

    def result(self) -> Result:
        if self._result is None:
            raise RuntimeFailed("the execution ended without a result; see the node's log", reason="no_result")
        logs = self._output.logs()
        return dataclasses.replace(self._result, stdout=logs.stdout, stderr=logs.stderr)
