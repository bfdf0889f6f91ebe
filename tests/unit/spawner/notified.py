"""A process whose exec and ptrace calls are handed to the test, and what the test needs to see of them."""

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandboxd.spawner import sys
from sandboxd.spawner.listener import Listener, Notification
from sandboxd.spawner.seccomp import Filter

NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000
PTRACE = {"x86_64": 101}.get(os.uname().machine, 117)
WAIT_MILLISECONDS = 30_000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def asking(*numbers: int) -> bytes:
    """A filter that hands over these calls and lets all others be made."""
    code = struct.pack("=HBBI", 0x20, 0, 0, 0)
    for place, number in enumerate(numbers):
        code += struct.pack("=HBBI", 0x15, len(numbers) - place, 0, number)
    return code + struct.pack("=HBBI", 0x06, 0, 0, ALLOW) + struct.pack("=HBBI", 0x06, 0, 0, NOTIFY)


@dataclass
class Notified:
    pid: int
    listener: Listener
    sock: socket.socket  # to the child: closed by an execve that works
    _poll: "select.poll" = field(init=False)

    def __post_init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(self.listener.fd, select.POLLIN)

    def waits(self, milliseconds: int = WAIT_MILLISECONDS) -> bool:
        return any(events & select.POLLIN for _, events in self._poll.poll(milliseconds))

    def receive(self) -> Notification:
        assert self.waits(), "no call came"
        notification = self.listener.receive()
        assert notification is not None
        return notification

    def status(self) -> int:
        """The exit code of the child: 0, or the errno that it saw; negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextlib.contextmanager
def notified(body: Callable[[], object], listen: Callable[[object], int] | None = None) -> Iterator[Notified]:
    """A child that runs `body` under a filter that asks, and ends with the errno of the OSError it raises."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            kept = Filter(asking(sys.EXECVE, sys.EXECVEAT, PTRACE))
            sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
            fd = (listen or sys.seccomp_listen)(kept.program)
            socket.send_fds(theirs, [b"l"], [fd])
            os.close(fd)
            body()
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(0)
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    made = Notified(pid, Listener(fds[0]), ours)
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            made.listener.close()
        ours.close()


def call(number: int, *arguments: object) -> int:
    """A raw system call; OSError if it fails."""
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def ptrace_me() -> None:
    call(PTRACE, 0, 0, 0, 0)


def expect(number: int, body: Callable[[], object]) -> None:
    """In the child: EDOM ends it if the call does not fail with that errno."""
    try:
        body()
    except OSError as error:
        if error.errno == number:
            return
        raise
    raise OSError(errno.EDOM, "it worked")
