"""Whether init's child can go on to execve(2) under a profile's filter: then the filter is there before the plan is.

To install one takes 0.3 ms, which then nobody waits for. Wrong in one direction only: a step that the filter does
refuse ends the child, and the program never runs. Called by `compile`.
"""

import mmap
import resource
from collections.abc import Iterator
from itertools import product

from sandboxd.profile.seccomp import ALLOW, NOTIFY, Meaning

_Call = tuple[str, tuple[int, int, int, int, int, int]]
_POINTER = 1 << 46
_SIZE = 1 << 20
_F_GET_SEALS = 1034
_FD = 4
_LAST_FD = 0x7FFFFFFF
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_DATA,
           resource.RLIMIT_AS, resource.RLIMIT_NPROC)  # fmt: skip


def lets_a_program_start(wanted: Meaning) -> bool:
    return not refused_steps(wanted)


def refused_steps(wanted: Meaning) -> tuple[str, ...]:
    """The calls that keep it from going on; init lets the execve of its own child through."""
    lets = {"execve": (ALLOW, NOTIFY)}
    refused = (name for name, args in steps() if wanted.action(name, args) not in lets.get(name, (ALLOW,)))
    return tuple(dict.fromkeys(refused))


def steps() -> Iterator[_Call]:
    """What `spawner.payload` calls once it has the filter: take the plan (a large one from a memory file), put
    everything in its place, run the program, or say why not."""
    yield "recvmsg", (_FD, _POINTER, 0, 0, 0, 0)
    yield "recvmsg", (_FD, _POINTER, 0x40000000, 0, 0, 0)  # MSG_CMSG_CLOEXEC
    yield "fcntl", (_FD, _F_GET_SEALS, 0, 0, 0, 0)
    yield "pread64", (_FD, _POINTER, _SIZE, 0, 0, 0)
    yield "close", (_FD, 0, 0, 0, 0, 0)
    for target in (0, 1, 2):
        yield "dup2", (_FD, target, 0, 0, 0, 0)
        yield "dup3", (_FD, target, 0, 0, 0, 0)  # libc's choice where there is no dup2
    yield "close_range", (_FD, _LAST_FD, 0, 0, 0, 0)
    for kind, old, new in product(_LIMITS, (0, _POINTER), (0, _POINTER)):
        yield "prlimit64", (0, kind, new, old, 0, 0)
    yield "chdir", (_POINTER, 0, 0, 0, 0, 0)
    yield "execve", (_POINTER, _POINTER, _POINTER, 0, 0, 0)
    yield "write", (_FD, _POINTER, 16, 0, 0, 0)  # the listener's number, to who hands it over
    yield "sendto", (_FD, _POINTER, _SIZE, 0, 0, 0)
    yield "write", (2, _POINTER, _SIZE, 0, 0, 0)
    yield "exit_group", (127, 0, 0, 0, 0, 0)
    # The interpreter's own.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    yield "mmap", (0, _SIZE, mmap.PROT_READ | mmap.PROT_WRITE, private, 0xFFFFFFFF, 0)
    yield "mremap", (_POINTER, _SIZE, _SIZE, 1, 0, 0)
    yield "munmap", (_POINTER, _SIZE, 0, 0, 0, 0)
    yield "madvise", (_POINTER, _SIZE, 4, 0, 0, 0)
    yield "brk", (_POINTER, 0, 0, 0, 0, 0)
    yield "futex", (_POINTER, 129, 1, 0, 0, 0)
