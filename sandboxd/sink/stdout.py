"""Events as Falco JSON, one line each, on the daemon's standard output, where a node's log collector finds them.

Never blocks the event loop: a pipe that nobody reads blocks a thread of its own, which does not hold up the daemon's
exit either. Found by name through `plugin`.
"""

import os
import select
from collections.abc import Sequence

from sandboxd.settings.sinks.stdout import StdoutSettings
from sandboxd.sink.base import Record, Sink
from sandboxd.sink.falco_event import falco_line
from sandboxd.sink.worker import Worker


class StdoutSink:
    """Writes to that descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._torn = False  # a failed write may have left half a line
        self._worker = Worker("sink-stdout")

    async def send(self, records: Sequence[Record]) -> None:
        data = b"".join(map(falco_line, records))
        await self._worker.run(lambda: self._write_all(data))

    async def close(self) -> None:
        self._worker.close(lambda: os.close(self._descriptor))

    def _write_all(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        try:
            while view:
                view = view[self._write(view) :]
        finally:
            if len(view) < len(data):
                self._torn = len(view) > 0 and data[len(data) - len(view) - 1] != ord("\n")

    def _write(self, view: memoryview) -> int:
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:
            # Whoever shares this pipe may have made it non-blocking.
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


def create(_settings: StdoutSettings, _node: str) -> Sink:
    return StdoutSink(1)
