"""The daemon's end of one worker: starts it, frames questions to it, kills it.

Blocking until it is asked for the first time on an event loop, asynchronous from then on; many questions may be under
way, answered in order. Never shares a descriptor or an environment variable with the worker, whose own end is
`host.confined`. Called by `policy.rego` and `analysis.analyser`.
"""

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_SCRIPT = Path(__file__).with_name("rego_worker.py")
_HEADER = struct.Struct(">IB")
_LOAD, _ASK = 1, 2
_START_SECONDS = 30.0
_MAX_ANSWER = 1024 * 1024


class Status(IntEnum):
    ANSWER = 1
    UNDEFINED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Answer:
    status: Status
    text: str


class WorkerGone(Exception):
    """It died, or broke the protocol."""


class WorkerLate(Exception):
    """It did not answer in time."""


class Worker(asyncio.Protocol):
    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: deque[asyncio.Future[Answer]] = deque()
        self._buffer = bytearray()
        self._end: type[WorkerGone] | type[WorkerLate] | None = None

    @classmethod
    def start(cls, script: Path | None = None) -> "Worker":
        """The one that evaluates Rego, or that which runs `script`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # Isolated mode: neither the environment nor the working directory decides what the worker imports.
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(script or _SCRIPT), str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=(theirs.fileno(),),
            )
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Also before it was asked for the first time, when nobody listens to its end of the connection."""
        return self._end is None and self._process.poll() is None

    def load(self, body: bytes) -> Answer:
        """Blocking; before the first `ask` only, as `try_out`."""
        return self._exchange(_LOAD, body)

    def try_out(self, document: bytes) -> Answer:
        return self._exchange(_ASK, document)

    def _exchange(self, kind: int, body: bytes) -> Answer:
        self._sock.settimeout(_START_SECONDS)
        try:
            self._sock.sendall(_HEADER.pack(len(body), kind) + body)
            while (answer := self._take()) is None:
                data = self._sock.recv(65536)
                if not data:
                    raise ConnectionResetError
                self._buffer += data
        except TimeoutError as error:
            raise WorkerLate(f"no answer within {_START_SECONDS} seconds") from error
        except ConnectionError as error:
            raise WorkerGone(f"it ended with status {self._process.wait()}") from error
        except OSError as error:
            raise WorkerGone(str(error)) from error
        return answer

    async def ask(self, document: bytes, deadline_seconds: float) -> Answer:
        """WorkerLate after the deadline, WorkerGone if it died; after either it answers nobody any more."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await self._connect()
        if self._end is not None or self._transport is None:
            raise (self._end or WorkerGone)("it is being replaced")
        future: asyncio.Future[Answer] = loop.create_future()
        self._pending.append(future)
        self._transport.write(_HEADER.pack(len(document), _ASK) + document)
        timer = loop.call_later(deadline_seconds, self._expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    async def _connect(self) -> None:
        if self._connecting is None:
            self._sock.setblocking(False)
            self._connecting = asyncio.create_task(self._attach())
        await asyncio.shield(self._connecting)

    async def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=self._sock)

    async def drain(self) -> None:
        """Until what is under way is answered or expired."""
        await asyncio.gather(*self._pending, return_exceptions=True)

    def abandon(self, *, late: bool) -> None:
        """Whoever still waits hears why at once."""
        self._end = WorkerLate if late else WorkerGone
        while self._pending:
            future = self._pending.popleft()
            if not future.done():
                future.set_exception(self._end("it is being replaced"))
        if self._transport is not None:
            self._transport.abort()

    def kill(self) -> None:
        """Blocking: gone and reaped when it returns. On a loop, `abandon` comes first."""
        self._process.kill()
        self._process.wait()
        if self._transport is None:
            self._sock.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while (answer := self._take()) is not None:
                future = self._pending.popleft()
                if not future.done():
                    future.set_result(answer)
        except (WorkerGone, IndexError):
            self.abandon(late=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is None:
            self.abandon(late=False)

    def _expire(self, future: asyncio.Future[Answer]) -> None:
        if not future.done():
            future.set_exception(WorkerLate())

    def _take(self) -> Answer | None:
        """The next whole frame of the buffer; WorkerGone for one that no worker of ours would send."""
        if len(self._buffer) < _HEADER.size:
            return None
        length, status = _HEADER.unpack_from(self._buffer)
        if length > _MAX_ANSWER:
            raise WorkerGone(f"an answer of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        try:
            return Answer(Status(status), body.decode())
        except ValueError as error:
            raise WorkerGone(f"an ill-shaped answer: {error}") from error
