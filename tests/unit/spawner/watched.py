"""Init's end of mediation over one real child, with a daemon that the test plays and a clock that it moves."""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandboxd.spawner import wire
from sandboxd.spawner.mediation import Server
from sandboxd.spawner.template import Mediation
from tests.unit.spawner.notified import PTRACE, Notified, notified

ID = "e" * 32
BOTH = Mediation(exec=True, reported=((PTRACE, errno.EXDEV),))


def run_true() -> None:
    os.execv("/bin/true", ["true", "word"])


@dataclass
class Init:
    """A Server, the daemon's end of its control connection, and one child that it watches."""

    child: Notified
    server: Server
    daemon: socket.socket
    poll: "select.poll"
    clock: list[float]
    sent: list[wire.Message] = field(default_factory=list)

    def serve(self, calls: int = 1) -> None:
        """That many rounds in which something is to do."""
        for _ in range(calls):
            ready = dict(self.poll.poll(30_000))
            assert ready
            self.server.serve(ready)

    def is_quiet(self) -> bool:
        return not self.poll.poll(100)

    def later(self, seconds: float) -> None:
        self.clock[0] += seconds
        self.server.tick()

    def asked(self) -> wire.Asked:
        (message,) = self.sent
        assert isinstance(message, wire.Asked)
        self.sent.clear()
        return message

    def told(self) -> tuple[int, str, int, int]:
        (message,) = self.sent
        assert isinstance(message, wire.CallRefused)
        self.sent.clear()
        assert (message.execution_id, message.pid > 0) == (ID, True)
        return message.number, message.reason, message.errno, message.count


@contextlib.contextmanager
def watching(body: Callable[[], object], rules: Mediation = BOTH, first: int = 0) -> Iterator[Init]:
    """`first` is the pid that counts as init's own child; without one nobody is."""
    control, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    poll, clock, sent = select.poll(), [100.0], []  # type: ignore[var-annotated]
    with control, daemon, notified(body) as child:
        server = Server(rules, control, sent.append, poll, lambda: clock[0])
        server.watch(child.listener.fd, ID, first or child.pid, child.sock if first >= 0 else socket.socket())
        yield Init(child, server, daemon, poll, clock, sent)


def stranger(body: Callable[[], object], rules: Mediation = BOTH) -> "contextlib.AbstractContextManager[Init]":
    """Its child is past its first execve, as a program is: some other process is init's own child."""
    return watching(body, rules, first=os.getpid())
