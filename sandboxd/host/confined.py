"""The inside of a worker process: confines itself, then answers one question after the other, until the daemon ends it.

For work that its input can make hang, crash or be taken over. Such a worker holds no secret, has an empty environment
and one socket to the daemon, which kills it when it is late. Called by the scripts that `policy.rego_process` starts.
Frames: 4 bytes length, 1 byte kind or status, body.
"""

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pyseccomp

HEADER = struct.Struct(">IB")
LOAD, ASK = 1, 2
ANSWER, UNDEFINED, FAILED = 1, 2, 3
GROWTH_BYTES = 1 << 30
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
# To read and write what is open, to have memory, and to end. Nothing by path, no socket, no process, no thread.
_NEEDED = (
    "read", "write", "recvfrom", "sendto", "poll", "ppoll", "close", "brk", "mmap", "munmap", "mremap", "mprotect",
    "madvise", "futex", "sched_yield", "clock_gettime", "gettimeofday", "getrandom", "getpid", "gettid",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "exit", "exit_group",
)  # fmt: skip


def serve(descriptor: int, parent: int, answer: Callable[[int, bytes], tuple[int, str]]) -> None:
    """`answer` turns a kind and a body into a status and a text. Returns when the daemon hangs up."""
    _confine(parent)
    with socket.socket(fileno=descriptor) as sock, sock.makefile("rb") as requests:
        while header := requests.read(HEADER.size):
            length, kind = HEADER.unpack(header)
            status, text = answer(kind, requests.read(length))
            body = text.encode("utf-8", "backslashreplace")
            sock.sendall(HEADER.pack(len(body), status) + body)


def give_up_system_calls() -> None:
    """All but those that a computation needs: the rest fail with EPERM. Whatever is imported later is not found."""
    system_calls = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for name in _NEEDED:
        system_calls.add_rule(pyseccomp.ALLOW, name)
    system_calls.load()


def _confine(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_DUMPABLE, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the daemon died before the signal was armed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the daemon
    for kind, limit in (
        (resource.RLIMIT_AS, _address_space_bytes() + GROWTH_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(kind, (limit, limit))


def _address_space_bytes() -> int:
    """What is mapped by now: a library's allocator alone may reserve 256 GiB that it never touches."""
    mapped_pages = Path("/proc/self/statm").read_text().split()[0]
    return int(mapped_pages) * resource.getpagesize()
