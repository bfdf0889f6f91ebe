"""Events as Falco JSON, one line each, on the daemon's standard output, where a node's log collector finds them.

Never blocks the event loop: a pipe that nobody reads blocks a thread of its own, which does not hold up the daemon's
exit either. Found by name through `plugin`.
"""

import asyncio
import contextlib
import os
import queue
import select
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sandboxd.settings.sinks.stdout import StdoutSettings
from sandboxd.sink.base import Record, Sink
from sandboxd.sink.falco_event import falco_line


@dataclass(frozen=True, slots=True)
class _Job:
    data: bytes
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class StdoutSink:
    """Writes to that descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sink-stdout", daemon=True)
        self._thread.start()

    async def send(self, records: Sequence[Record]) -> None:
        loop = asyncio.get_running_loop()
        job = _Job(b"".join(map(falco_line, records)), loop, loop.create_future())
        self._jobs.put(job)
        await job.done

    async def close(self) -> None:
        """What the thread is stuck in ends with the process."""
        self._jobs.put(None)

    def _work(self) -> None:
        torn = False  # a failed write may have left half a line
        while (job := self._jobs.get()) is not None:
            data = b"\n" + job.data if torn else job.data
            error: OSError | None = None
            view = memoryview(data)
            try:
                while view:
                    view = view[self._write(view) :]
            except OSError as failure:
                error = failure
            if len(view) < len(data):
                torn = len(view) > 0 and data[len(data) - len(view) - 1] != ord("\n")
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                job.loop.call_soon_threadsafe(_settle, job.done, error)
        os.close(self._descriptor)

    def _write(self, view: memoryview) -> int:
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:
            # Whoever shares this pipe may have made it non-blocking.
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def create(_settings: StdoutSettings, _node: str) -> Sink:
    return StdoutSink(1)
