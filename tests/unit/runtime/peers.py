"""The other ends of what `runtime` talks to: a spawner and the inits of its sandboxes, played by the test itself."""

import asyncio
import socket
from collections.abc import Sequence
from typing import TypeVar

from sandboxd.model import Guarantee, Isolation, LaunchPlan, Limits
from sandboxd.spawner import wire
from tests.unit.test_supervise import LIMITS

M = TypeVar("M", bound=wire.Message)

SANDBOX_ID = "a" * 32
HOST_UID = 1879048192
DIGEST = "d" * 64
FACTS = (
    (Guarantee.LIMIT_MEMORY.value, "enforced", "cgroup v2", ""),
    (Guarantee.LIMIT_PIDS.value, "degraded", "rlimit", "no pids controller"),
)


class Peer:
    """One end of a connection, read without blocking the event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)

    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        wire.send(self.sock, message, fds)

    async def receive(self, kind: type[M]) -> tuple[M, list[int]]:
        """The next message, which must be of that kind, and its descriptors."""
        while True:
            try:
                received = wire.receive(self.sock)
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            assert received is not None, "the connection was closed"
            message, fds = received
            assert isinstance(message, kind), message
            return message, fds

    async def ended(self) -> None:
        """Until the other side has closed."""
        while True:
            try:
                assert wire.receive(self.sock) is None
            except BlockingIOError:
                await asyncio.sleep(0)
            except ConnectionResetError:
                return  # it closed with something unread
            else:
                return

    def close(self) -> None:
        self.sock.close()


def pair() -> tuple[socket.socket, Peer]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours, Peer(theirs)


def hello(living: int = 0) -> wire.Hello:
    return wire.Hello("root", "6.1.0", FACTS, (("default", DIGEST),), living)


def launch_plan(limits: Limits = LIMITS) -> LaunchPlan:
    return LaunchPlan(SANDBOX_ID, Isolation.PROCESS, DIGEST, limits, "none")
