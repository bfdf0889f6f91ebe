"""What the spawner still has to tell one daemon: in order, never blocking, never the wrong descriptors.

What waits for room holds copies of its descriptors: a sandbox may end meanwhile, and its numbers would be another's.
Called by `service`.
"""

import os
import socket
from collections import deque
from collections.abc import Callable

from sandboxd.spawner import wire


class Outbox:
    """`undelivered` is told of a message that the kernel refuses to carry, once it is out of the queue."""

    def __init__(self, sock: socket.socket, undelivered: Callable[[wire.Message, OSError], None]) -> None:
        self._sock = sock
        self._undelivered = undelivered
        self._waiting: deque[tuple[wire.Message, tuple[int, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        """The descriptors stay the caller's."""
        if self._waiting or not self._sent(message, fds):
            copies: list[int] = []
            try:
                for fd in fds:
                    copies.append(os.dup(fd))
            except OSError as error:
                wire.close_all(copies)
                self._undelivered(message, error)
                return
            self._waiting.append((message, tuple(copies)))

    def flush(self) -> None:
        while self._waiting:
            message, copies = self._waiting[0]
            if not self._sent(message, copies):
                return
            if self._waiting:  # not so after the peer died
                self._waiting.popleft()
                wire.close_all(copies)

    def clear(self) -> None:
        for _, copies in self._waiting:
            wire.close_all(copies)
        self._waiting.clear()

    def _sent(self, message: wire.Message, fds: tuple[int, ...]) -> bool:
        """False if there is no room now."""
        try:
            wire.send(self._sock, message, fds)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.clear()  # it died; its pidfd tells
        except OSError as error:
            self._undelivered(message, error)
        return True
