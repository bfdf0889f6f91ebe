"""Stands by while a sandbox is frozen on cgroup v1, where the killed stay frozen and outlive whoever froze them.

A child of the spawner that waits for the spawner's end, whatever that is, and then has the frozen ones die. It holds
nothing but the freezer's directory and its end of a pipe. Started by `sandboxes` with the first freeze.
"""

import os
import signal
from typing import NoReturn

from sandboxd.spawner import sys
from sandboxd.spawner.cgroup import CgroupTree

_LAST_FD = 0x7FFFFFFF
_PASSED_OVER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)  # meant for the spawner, whose end tells


class Guard:
    """From now on, until the spawner ends or dismisses it."""

    def __init__(self, tree: CgroupTree) -> None:
        """OSError if it cannot be started: then nothing must be frozen."""
        read, self._line = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                _stand_by(read, tree)
            finally:
                os._exit(1)  # whatever happened: never back into the spawner's own code
        os.close(read)
        self._pid = pid

    def dismiss(self) -> None:
        os.close(self._line)
        os.waitpid(self._pid, 0)


def _stand_by(line: int, tree: CgroupTree) -> NoReturn:
    signal.set_wakeup_fd(-1)
    for number in _PASSED_OVER:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    for fd in (0, 1, 2):
        os.close(fd)
    held = sorted((line, *tree.held()))
    for before, fd in zip((2, *held), (*held, _LAST_FD + 1), strict=True):
        if before + 1 < fd:
            sys.close_range(before + 1, fd - 1)
    os.read(line, 1)  # its end: nobody writes to it, and nobody else has the other end
    tree.let_die()
    os._exit(0)
