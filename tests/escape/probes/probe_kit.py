"""Ground of every probe: raw system calls, and one JSON line that says how the attempt ended.

Shipped into the sandbox beside the probe that imports it, so: standard library only, and nothing of this repository.
A probe never judges. It tries one thing and reports; the test outside knows what had to happen.
"""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

# x86_64; the tables of attempts name these calls, libc wraps few of them.
NUMBERS = {
    "open": 2, "mmap": 9, "ioctl": 16, "madvise": 28, "socket": 41, "socketpair": 53, "setsockopt": 54, "fcntl": 72,
    "flock": 73, "mknodat": 259, "setrlimit": 160, "shmget": 29, "getpid": 39, "sendto": 44, "sendmsg": 46, "clone": 56,
    "semget": 64, "msgget": 68, "creat": 85, "ptrace": 101, "syslog": 103, "setuid": 105, "setgroups": 116,
    "mknod": 133, "personality": 135, "pivot_root": 155, "prctl": 157, "adjtimex": 159, "chroot": 161, "acct": 163,
    "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "sethostname": 170, "iopl": 172, "ioperm": 173,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "clock_settime": 227, "kexec_load": 246,
    "add_key": 248, "request_key": 249, "keyctl": 250, "inotify_init": 253, "inotify_add_watch": 254, "unshare": 272,
    "inotify_init1": 294, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "seccomp": 317, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321, "execveat": 322,
    "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438,
    "mount_setattr": 442, "landlock_restrict_self": 446, "prlimit64": 302,
    "memfd_secret": 447, "renameat2": 316, "process_madvise": 440,
}  # fmt: skip

Argument = int | bytes | ctypes.Array | ctypes.Structure | None  # type: ignore[type-arg]


class Refused(Exception):
    """The attempt came to nothing without an errno: no gain, masked, another program's refusal."""


def syscall(name: str | int, *arguments: Argument) -> int:
    """The raw system call; OSError with the name of the call where it answers an errno."""
    number = NUMBERS[name] if isinstance(name, str) else name
    words: list[object] = []
    for argument in arguments:
        if isinstance(argument, int):
            words.append(ctypes.c_long(argument))
        elif isinstance(argument, ctypes.Array | ctypes.Structure):
            words.append(ctypes.byref(argument))
        else:
            words.append(ctypes.c_char_p(argument))
    ctypes.set_errno(0)
    result = int(LIBC.syscall(ctypes.c_long(number), *words))
    if result == -1:
        raise CallFailed(ctypes.get_errno(), f"syscall {name}", call=str(name))
    return result


class CallFailed(OSError):
    """With the name of the system call, if it is known, and who made it."""

    def __init__(self, number: int, text: str, call: str = "", pid: int = 0) -> None:
        super().__init__(number, text)
        self.call = call
        self.pid = pid or os.getpid()


class Probe:
    """One attempt. `reached` are the errnos that only code behind the permission check can give: the door was open."""

    def __init__(self, attempt: Callable[[], str | None], reached: Sequence[int]) -> None:
        self.attempt = attempt
        self.reached = tuple(reached)


_PROBES: dict[str, Probe] = {}


def probe(
    *, reached: Sequence[int] = (), name: str = ""
) -> Callable[[Callable[[], str | None]], Callable[[], str | None]]:
    """Registers an attempt under its function's name."""

    def register(attempt: Callable[[], str | None]) -> Callable[[], str | None]:
        _PROBES[name or attempt.__name__] = Probe(attempt, reached)
        return attempt

    return register


def report(outcome: str, code: str, detail: str, call: str = "", pid: int = 0) -> None:
    """One line on a line of its own, whatever was written before."""
    line = {"outcome": outcome, "errno": code, "detail": detail, "call": call, "pid": pid or os.getpid()}
    sys.stdout.write("\n" + json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the probe named in argv[1]. Its child processes must end with os._exit."""
    chosen = _PROBES[sys.argv[1]]
    try:
        detail = chosen.attempt() or ""
    except Refused as refused:
        report("refused", "", str(refused))
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        if error.errno in chosen.reached:
            report("worked", code, "past the permission check")
        else:
            said = f"{error.strerror} {error.filename or ''}".strip()
            report("errno", code, said, getattr(error, "call", ""), getattr(error, "pid", 0))
    else:
        report("worked", "", detail)


def in_child(attempt: Callable[[], None]) -> None:
    """Run in a forked child, for attempts that end or change the process that makes them; its errno is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            number, call = 0, ""
            try:
                attempt()
            except OSError as error:
                number, call = error.errno or errno.EIO, getattr(error, "call", "")
            os.write(writer, number.to_bytes(4, "little") + call.encode())
        finally:  # whatever else it raises: this process must not go on as a second parent
            os._exit(0)
    os.close(writer)
    data = os.read(reader, 100)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    if not data:
        raise RuntimeError("the child of the probe broke")
    if number := int.from_bytes(data[:4], "little"):
        raise CallFailed(number, os.strerror(number), data[4:].decode(), child)


def keep_exchanging(first: str, second: str) -> int:
    """A child that swaps two names for ever, each swap atomic; its pid, for `end`."""
    child = os.fork()
    if child == 0:
        while True:
            syscall("renameat2", -100, first.encode(), -100, second.encode(), 2)
    return child


def end(child: int) -> None:
    os.kill(child, 9)
    os.waitpid(child, 0)
