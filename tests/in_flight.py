"""Descriptors of one user that are under way: sent, and by nobody received yet. The kernel bounds their number.

A process that is not privileged over the host may send none (ETOOMANYREFS) while its user has more of them under way
than the process may have open: see RLIMIT_NOFILE and unix(7).
"""

import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import reachable

_CHECKOUT = Path(__file__).resolve().parent.parent
_MOST_AT_ONCE = 253  # SCM_MAX_FD


@contextlib.contextmanager
def under_way(uid: int, count: int) -> Iterator[None]:
    """So many of that user's, until the block is left. Needs root."""
    command = [*reachable.prefix(_CHECKOUT), sys.executable, "-m", "tests.in_flight", str(uid), str(count)]
    with subprocess.Popen(command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"under way\n"
        yield


def may_have_open(pid: int) -> int:
    """RLIMIT_NOFILE of a process."""
    return int(Path(f"/proc/{pid}/limits").read_text().partition("Max open files")[2].split()[0])


def main(uid: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count, 2 * count))  # it counts for the sender too
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sent in range(0, count, _MOST_AT_ONCE):
            socket.send_fds(ours, [b"x"], [0] * min(_MOST_AT_ONCE, count - sent))
        sys.stdout.write("under way\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
