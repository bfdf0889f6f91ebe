"""What a program may try that does not wish well: looks for a way out, then forks and floods until it is ended.

Sent into a sandbox by `demo.py` and harmless outside one until it forks: every attempt only reads, or would fail for
an ordinary user. Run it as: hostile.py CANARY-FILE HOST-PORT
"""

import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

SYS_PTRACE, SYS_UNSHARE, SYS_MOUNT, SYS_BPF, SYS_IO_URING_SETUP = 101, 272, 165, 321, 425
CLONE_NEWUSER = 0x10000000

libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int) -> None:
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        pass


def main() -> None:
    canary, port = sys.argv[1], int(sys.argv[2])
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("read a secret of the host", lambda: Path(canary).read_text()),
        ("read /etc/shadow", lambda: Path("/etc/shadow").read_text()),
        ("leave through /proc/1/root", lambda: Path("/proc/1/root", canary[1:]).read_text()),
        ("replace a program in /usr/bin", lambda: os.open("/usr/bin/env", os.O_RDWR)),
        ("write the host's core_pattern", lambda: Path("/proc/sys/kernel/core_pattern").write_text("|/tmp/x")),
        ("connect to a port of the host", lambda: connect(port)),
        ("become root", lambda: os.setuid(0)),
        ("trace another process", lambda: call(SYS_PTRACE, 0, 0, 0, 0)),
        ("make a user namespace", lambda: call(SYS_UNSHARE, CLONE_NEWUSER)),
        ("mount a file system", lambda: call(SYS_MOUNT, 0, 0, 0, 0, 0)),
        ("load a BPF program", lambda: call(SYS_BPF, 0, 0, 0)),
        ("use io_uring", lambda: call(SYS_IO_URING_SETUP, 1, 0)),
        ("run what it has written", run_own_program),
    ]
    for what, attempt in attempts:
        try:
            attempt()
            print(f"{what}\tSUCCEEDED", flush=True)
        except OSError as error:
            print(f"{what}\t{errno.errorcode.get(error.errno or 0, str(error))}", flush=True)
    print(f"fork without end\tstopped after {fork_bomb()} processes", flush=True)
    while True:
        os.write(1, b"flood " * 10_000)


def run_own_program() -> None:
    program = Path("/tmp/own-program")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    os.posix_spawn(program, [str(program)], {})


def fork_bomb() -> int:
    """Children that ignore SIGTERM and never end by themselves; how many there were when the kernel said no."""
    count = 0
    while True:
        try:
            child = os.fork()
        except OSError:
            return count
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        count += 1


if __name__ == "__main__":
    main()
