"""Looks into a living sandbox for whoever answers an incident: its processes, mounts and workspace, frozen or not.

A child does it, which takes a look from outside and then enters the sandbox's user and mount namespace (never its pid
namespace), so no data of a tenant enters the spawner and none of its programs sees anybody come. What it finds goes to
the daemon through a pipe, as `NAME LENGTH\\n` and so many bytes, again and again. Called by `sandboxes`.
"""

import json
import os
import resource
import selectors
import signal
from collections.abc import Callable
from typing import NoReturn

from sandboxd.spawner import processes, sys
from sandboxd.spawner.archive import Packer
from sandboxd.spawner.template import WORKSPACE

MOST_AT_ONCE = 2
MOST_SECONDS = 120
MAX_FRAME_BYTES = 64 * 1024
_LAST_FD = 0x7FFFFFFF
_DEFAULTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGALRM)


class Busy(Exception):
    """As many are under way as may be."""


class Examiner:
    """Those that are under way; `selector` is the spawner's."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._under_way: set[int] = set()

    def begin(self, init: int, user: int, mount: int, workspace_bytes: int) -> int:
        """The pipe's end to read from, now the caller's. `Busy`, or OSError if no child can be made."""
        if len(self._under_way) >= MOST_AT_ONCE:
            raise Busy
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            os.close(read)
            os.close(write)
            raise
        if pid == 0:
            try:
                _examine(init, user, mount, write, workspace_bytes)
            finally:
                os._exit(1)  # whatever happened: never back into the spawner's own code
        os.close(write)
        pidfd = os.pidfd_open(pid)
        self._under_way.add(pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._end(pidfd))
        return read

    def close(self) -> None:
        for pidfd in tuple(self._under_way):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self._end(pidfd)

    def _end(self, pidfd: int) -> None:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._selector.unregister(pidfd)
        self._under_way.discard(pidfd)
        os.close(pidfd)


def _examine(init: int, user: int, mount: int, pipe: int, workspace_bytes: int) -> NoReturn:
    signal.set_wakeup_fd(-1)
    for number in _DEFAULTED:
        signal.signal(number, signal.SIG_DFL)
    sys.prctl(sys.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(MOST_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _keep(sorted((user, mount, pipe, proc)))
    tell = _teller(pipe)
    sys.setns(user, sys.CLONE_NEWUSER)  # there we may look at what is theirs, and have no privilege anywhere else
    _attempt(tell, "processes.json", lambda: json.dumps(processes.tree(proc, init), indent=1).encode())
    sys.setns(mount, sys.CLONE_NEWNS)
    _attempt(tell, "mounts.txt", lambda: _mounts(proc))
    packer = Packer(lambda piece: tell("workspace.tar", piece), workspace_bytes)
    packer.pack(os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    listing = {"complete": packer.complete, "entries": packer.entries}
    tell("workspace.json", json.dumps(listing, indent=1).encode())
    os._exit(0)


def _keep(held: list[int]) -> None:
    before = -1
    for fd in (*held, _LAST_FD + 1):
        if before + 1 < fd:
            sys.close_range(before + 1, fd - 1)
        before = fd


def _teller(pipe: int) -> Callable[[str, bytes], None]:
    def tell(name: str, data: bytes) -> None:
        for start in range(0, len(data), MAX_FRAME_BYTES):
            piece = data[start : start + MAX_FRAME_BYTES]
            frame = memoryview(b"%s %d\n%s" % (name.encode(), len(piece), piece))
            while frame:
                frame = frame[os.write(pipe, frame) :]

    return tell


def _attempt(tell: Callable[[str, bytes], None], name: str, look: Callable[[], bytes]) -> None:
    """One that fails says so in its place, and the others come all the same."""
    try:
        tell(name, look())
    except (OSError, ValueError) as error:
        tell(name, f"cannot be read: {error}\n".encode())


def _mounts(proc: int) -> bytes:
    with open(os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc), "rb") as file:
        return processes.text(file.read()).encode()
