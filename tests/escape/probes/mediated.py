"""Attempts on an exec that is asked about: run what policy denies, run unseen, wear out who answers.

Each that runs something prints a marker through it, or says in its report how often it ran.
"""

import ctypes
import errno
import itertools
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from .probe_kit import LIBC, Refused, end, main, probe, syscall
from .system_calls import int80

ECHO = "/usr/bin/echo"
DENIED = "/usr/bin/printf"  # by the policy of the test
EMPTY = (ctypes.c_char_p * 1)(None)
EMPTY_PATH = 0x1000
EXECVE = 59


def _words(*words: bytes) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


MARKER = _words(b"printf", b"marker")


def _forked(attempt: Callable[[], object]) -> tuple[bytes, int]:
    """What it printed, and the errno with which the attempt came back."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writer, 1)
            attempt()
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(254)
    os.close(writer)
    with open(reader, "rb") as file:
        output = file.read()
    return output, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _ended(attempt: Callable[[], object]) -> str:
    output, code = _forked(attempt)
    if b"marker" in output:
        return "it ran"
    raise OSError(code, os.strerror(code))


def _execve(path: object) -> None:
    syscall(EXECVE, path, MARKER, EMPTY)  # type: ignore[arg-type]


@probe()
def by_name() -> str:
    return _ended(lambda: _execve(DENIED.encode()))


@probe()
def by_relative_name() -> str:
    os.chdir("/usr/lib")
    return _ended(lambda: _execve(b"../bin/./printf"))


@probe()
def by_link() -> str:
    os.symlink(DENIED, "harmless")
    return _ended(lambda: _execve(b"harmless"))


@probe()
def by_other_root() -> str:
    return _ended(lambda: _execve(b"/proc/self/root/usr/bin/printf"))


@probe()
def by_descriptor_of_itself() -> str:
    fd = os.open(DENIED, os.O_RDONLY)
    return _ended(lambda: _execve(f"/proc/self/fd/{fd}".encode()))


@probe()
def by_descriptor_of_parent() -> str:
    fd = os.open(DENIED, os.O_RDONLY)
    return _ended(lambda: _execve(f"/proc/{os.getppid()}/fd/{fd}".encode()))


@probe()
def by_execveat() -> str:
    fd = os.open(DENIED, os.O_RDONLY)
    return _ended(lambda: syscall("execveat", fd, b"", MARKER, EMPTY, EMPTY_PATH))


@probe()
def by_execveat_below() -> str:
    fd = os.open("/usr", os.O_RDONLY)
    return _ended(lambda: syscall("execveat", fd, b"bin/printf", MARKER, EMPTY, 0))


@probe()
def by_thread() -> str:
    def attempt() -> None:
        seen: list[OSError] = []

        def run() -> None:
            try:
                _execve(DENIED.encode())
            except OSError as error:
                seen.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        raise seen[0]

    return _ended(attempt)


@probe()
def by_posix_spawn() -> str:
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    child = os.posix_spawn(DENIED, ["printf", "marker"], {}, file_actions=actions)
    os.waitpid(child, 0)
    return os.read(reader, 10).decode()


@probe()
def by_vfork() -> str:
    return subprocess.run([DENIED, "marker"], stdout=subprocess.PIPE, check=True).stdout.decode()


@probe()
def by_undumpable() -> str:
    def attempt() -> None:
        syscall("prctl", 4, 0)
        _execve(DENIED.encode())

    return _ended(attempt)


@probe()
def flipped_memory() -> str:
    """The name changes in the caller's own memory while it is read and decided: what no rule lets run must not."""
    evil = os.path.abspath(shutil.copyfile(ECHO, "evil")).encode() + b"\0"
    os.chmod("evil", 0o755)
    good = b"/usr/bin/true\0"
    shared = mmap.mmap(-1, 4096)
    flipper = os.fork()
    if flipper == 0:
        for name in itertools.cycle((good, evil)):
            shared[: len(name)] = name
    at = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    try:
        ran = sum(b"marker" in _forked(lambda: _execve(at))[0] for _ in range(200))
    finally:
        end(flipper)
    if not ran:
        raise Refused("never ran")
    return f"{ran} of 200"


@probe()
def int80_execve() -> None:
    """The number of execve for a 32-bit program, with its strings where such a one can have them."""
    memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)  # MAP_32BIT
    memory.write(b"/usr/bin/true\0")
    path = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def attempt() -> None:
        raise OSError(-int80(11, path), "int 0x80 execve")

    _, code = _forked(attempt)
    if code < 0:
        os.kill(os.getpid(), -code)
    if code:
        raise OSError(code, os.strerror(code))


@probe()
def silence_by_seccomp() -> None:
    """A filter of one's own that answers instead of who is asked. All it does is to let everything be made."""
    code = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\xff\x7f", 8)
    program = ctypes.create_string_buffer(b"\x01\0\0\0\0\0\0\0" + ctypes.addressof(code).to_bytes(8, "little"), 16)
    LIBC.prctl(38, 1, 0, 0, 0)
    syscall("seccomp", 1, 0, program)


@probe()
def silence_by_prctl() -> None:
    code = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\xff\x7f", 8)
    program = ctypes.create_string_buffer(b"\x01\0\0\0\0\0\0\0" + ctypes.addressof(code).to_bytes(8, "little"), 16)
    LIBC.prctl(38, 1, 0, 0, 0)
    syscall("prctl", 22, 2, program)


@probe()
def two_megabytes() -> str:
    return _ended(
        lambda: syscall(EXECVE, b"/usr/bin/printf", _words(b"printf", b"marker", *[b"x" * 100_000] * 20), EMPTY)
    )


@probe()
def name_that_is_no_text() -> str:
    link = b"\xff\xfe"
    os.symlink(b"/usr/bin/true", link)
    _, code = _forked(lambda: syscall(EXECVE, link, _words(b"\xff"), EMPTY))
    if code:
        raise OSError(code, os.strerror(code))
    return "it ran"


@probe()
def unmapped_name() -> None:
    syscall(EXECVE, 0x1000, MARKER, EMPTY)


@probe()
def pipe_as_program() -> None:
    """Whoever opened it to look would wait for a writer for ever."""
    os.mkfifo("fifo", 0o777)
    syscall(EXECVE, b"fifo", MARKER, EMPTY)


@probe()
def under_signals() -> str:
    """A timer interrupts every wait; each exec must be asked about once."""
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.siginterrupt(signal.SIGALRM, False)

    def run() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        syscall(EXECVE, b"/usr/bin/true", _words(b"once"), EMPTY)

    for _ in range(30):
        _, code = _forked(run)
        if code not in (0, -signal.SIGALRM):  # the timer outlives the handler
            raise OSError(code, os.strerror(code))
    return "30"


@probe()
def killed_while_asked() -> str:
    """Nobody waits for an answer any more; those who do must get theirs."""
    for _ in range(100):
        child = os.fork()
        if child == 0:
            syscall(EXECVE, b"/usr/bin/sleep", _words(b"sleep", b"1000"), EMPTY)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    subprocess.run(["/usr/bin/true"], check=True)
    return "answered"


@probe()
def storm() -> None:
    """500 threads that run programs without end, each of them waiting for its own answer."""
    go = threading.Event()

    def run() -> None:
        go.wait()
        argv = _words(b"true")
        child = ctypes.c_int()
        while True:
            if LIBC.posix_spawn(ctypes.byref(child), b"/usr/bin/true", None, None, argv, EMPTY) == 0:
                os.waitpid(child.value, 0)

    threading.stack_size(256 * 1024)
    for _ in range(500):
        threading.Thread(target=run, daemon=True).start()
    sys.stdout.write("all there\n")
    sys.stdout.flush()
    go.set()
    signal.pause()


@probe()
def traced() -> str:
    """A call that the profile reports, as often as argv says."""
    for _ in range(int(sys.argv[2])):
        try:
            syscall("ptrace", 0, 0, 0, 0)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
    syscall("ptrace", 0, 0, 0, 0)
    return "traced"


if __name__ == "__main__":
    main()
