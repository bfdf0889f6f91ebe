"""The pipes of one execution: stdin is fed, stdout and stderr are read, kept up to a cap, counted beyond it.

Memory stays flat: at most QUEUE_BYTES wait for the consumer, then reading pauses and the program blocks in write(2),
while bytes over a cap are read and dropped at once. Never blocks, starts no task. What policy has redacted is gone from
a chunk before anybody sees it. Called by `supervise` alone.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable

from sandboxd.model import Chunk, Stream
from sandboxd.redaction.stream import StreamRedactor

QUEUE_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
REDACTED_READ_BYTES = 16 * 1024  # at once, so that others get their turn where much of it is found
PIPE_MAX_BYTES = 1024 * 1024  # the most that an unprivileged process can make a pipe hold
CHUNK_OVERHEAD_BYTES = 256  # what a chunk costs besides its data, so that a flood of single bytes counts too


class Queue:
    """Chunks on their way to one consumer. `full` tells the producer to pause; `on_room` says that it may go on."""

    def __init__(self) -> None:
        self.on_room: Callable[[], None] | None = None
        self.on_chunk: Callable[[Chunk], None] | None = None  # sees every chunk, also those nobody waits for
        self._chunks: deque[Chunk] = deque()
        self._bytes = 0
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        return self._bytes >= QUEUE_BYTES

    def put(self, chunk: Chunk) -> None:
        if self.on_chunk is not None:
            self.on_chunk(chunk)
        if not self._closed:
            self._chunks.append(chunk)
            self._bytes += len(chunk.data) + CHUNK_OVERHEAD_BYTES
            self._wake()

    def close(self) -> None:
        """Nothing comes after what is in it now."""
        self._closed = True
        self._wake()

    def abandon(self) -> None:
        """The consumer is gone: drop what waits and whatever comes."""
        self._chunks.clear()
        self._bytes = 0
        self._closed = True
        if self.on_room is not None:
            self.on_room()

    async def get(self) -> Chunk | None:
        """The next chunk, None at the end. For one consumer."""
        while not self._chunks:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        was_full = self.full
        chunk = self._chunks.popleft()
        self._bytes -= len(chunk.data) + CHUNK_OVERHEAD_BYTES
        if was_full and not self.full and self.on_room is not None:
            self.on_room()
        return chunk

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Pump:
    """One output stream, from the descriptor it owns into the queue. `on_bytes` hears of every read.

    With a `redactor` the cap holds for what comes out of it, too. What it holds back when the stream is cut may be part
    of a match, and is dropped.
    """

    def __init__(
        self,
        stream: Stream,
        fd: int,
        cap: int,
        queue: Queue,
        on_bytes: Callable[[int], None],
        redactor: StreamRedactor | None = None,
    ) -> None:
        self.stream = stream
        self.produced = 0
        self.grown = False  # longer than the cap for its markers
        self._redactor = redactor
        self._passed = 0  # what came out of it
        self._read_bytes = READ_BYTES if redactor is None else REDACTED_READ_BYTES
        self._fd = fd
        self._cap = cap
        self._queue = queue
        self._on_bytes = on_bytes
        self._loop = asyncio.get_running_loop()
        self._reading = False

    @property
    def paused(self) -> bool:
        return self._fd >= 0 and not self._reading

    def resume(self) -> None:
        if self._fd >= 0 and not self._reading:
            self._loop.add_reader(self._fd, self._readable)
            self._reading = True

    def drain(self) -> None:
        """Take what the pipe still holds, once no writer is left alive, and close."""
        enough = self.produced + PIPE_MAX_BYTES  # should a writer live on after all
        while self._fd >= 0 and self.produced < enough and self._read():
            pass
        self.close()

    def close(self) -> None:
        if self._fd < 0:
            return
        self._pause()
        os.close(self._fd)
        self._fd = -1

    def _readable(self) -> None:
        if self._queue.full and self.produced < self._cap:
            self._pause()
        else:
            self._read()

    def _read(self) -> bool:
        """Whether there may be more now."""
        try:
            data = os.read(self._fd, self._read_bytes)
        except BlockingIOError:
            return False
        if not data:
            if self._redactor is not None and self.produced <= self._cap:
                self._pass_on(self._redactor.finish())
            self.close()
            return False
        offset = self.produced
        self.produced += len(data)
        if kept := data[: max(0, self._cap - offset)]:
            if self._redactor is None:
                self._queue.put(Chunk(self.stream, offset, kept))
            else:
                self._pass_on(self._redactor.feed(kept))
        self._on_bytes(len(data))
        return True

    def _pass_on(self, redacted: bytes) -> None:
        kept = redacted[: self._cap - self._passed]
        self.grown = self.grown or len(kept) < len(redacted)
        if kept:
            self._queue.put(Chunk(self.stream, self._passed, kept))
            self._passed += len(kept)

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False


class Feeder:
    """Stdin. What fits into the pipe is written at once; the rest follows as the program reads, never blocking."""

    def __init__(self, fd: int, data: bytes) -> None:
        self._fd = fd
        self._left = memoryview(data)
        self._loop = asyncio.get_running_loop()
        self._write()
        if self._fd >= 0:
            self._loop.add_writer(self._fd, self._write)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._left = memoryview(b"")

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # it closed its stdin, or ended, without reading everything: its own business
        self.close()
