"""A thread of a sink's own for calls that block, one after another. Used by sinks that write and connect themselves.

Never holds up the daemon's exit: what the thread is stuck in ends with the process. Never shares a thread: whoever else
needs one, such as the journal's sync, must not wait for a sink.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], None]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Worker:
    """`close` it once; what was under way is finished before."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._release: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], None]) -> None:
        """Once everything given before is done. To give up waiting does not end the work."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        await job.done

    def close(self, release: Callable[[], None]) -> None:
        """`release` is called in the thread, as its last. Does not wait for it."""
        self._release = release
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            error: Exception | None = None
            try:
                job.work()
            except Exception as failure:  # noqa: BLE001  it is raised where the work was asked for
                error = failure
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                job.loop.call_soon_threadsafe(_settle, job.done, error)
        self._release()


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
