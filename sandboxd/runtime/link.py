"""The daemon's end of a SOCK_SEQPACKET connection to the spawner or to an init, driven by the event loop.

Keeps order, never blocks, never drops: what the socket does not take now waits in a queue. Called by `process` and
`process_sandbox`.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from sandboxd.spawner import wire

log = logging.getLogger(__name__)

OnMessage = Callable[[wire.Message, list[int]], None]


class Link:
    """`on_message` gets each message and its descriptors, now its own; `on_lost` is told once when the peer is gone."""

    def __init__(self, sock: socket.socket, on_message: OnMessage, on_lost: Callable[[], None]) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[wire.Message, tuple[int, ...]]] = deque()
        self._closed = False
        self._loop.add_reader(sock.fileno(), self._read)

    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Descriptors are copied: they stay the caller's. A lost peer is told through `on_lost`, not here.

        Anything else that keeps a message from going is raised: `wire.ProtocolError` (too large) or OSError.
        """
        if self._closed:
            return
        if not self._waiting:
            try:
                wire.send(self._sock, message, fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._write)
            except ConnectionError:
                return  # the reader sees the end and tells
            else:
                return
        self._waiting.append((message, tuple(os.dup(fd) for fd in fds)))

    def close(self) -> None:
        """Idempotent; `on_lost` is not called afterwards."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._waiting:
            wire.close_all(fds)
        self._waiting.clear()

    def _read(self) -> None:
        try:
            received = wire.receive(self._sock)
        except BlockingIOError:
            return
        except (wire.ProtocolError, OSError) as error:
            log.warning("a peer broke the protocol", extra={"error": str(error)})
            received = None
        if received is None:
            self._lose()
            return
        try:
            self._on_message(*received)
        except wire.ProtocolError as error:
            log.warning("a peer broke the protocol", extra={"error": str(error)})
            self._lose()

    def _lose(self) -> None:
        if not self._closed:
            self.close()
            self._on_lost()

    def _write(self) -> None:
        while self._waiting:
            message, fds = self._waiting[0]
            try:
                wire.send(self._sock, message, fds)
            except BlockingIOError:
                return
            except ConnectionError:
                break  # the reader sees the end and tells
            except (wire.ProtocolError, OSError) as error:
                log.warning("a message cannot be sent", extra={"error": str(error)})
                self._lose()
                return
            self._waiting.popleft()
            wire.close_all(fds)
        self._loop.remove_writer(self._sock.fileno())
