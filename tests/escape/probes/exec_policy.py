"""Attempts of the table "Execution-policy bypass" that need no decision in flight: run an image that is not allowed.

Each prints a marker through the forbidden image; a marker that comes back is an image that ran.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from .probe_kit import LIBC, CallFailed, Refused, end, keep_exchanging, main, probe, syscall

ECHO = "/usr/bin/echo"
LOADER = "/lib64/ld-linux-x86-64.so.2"
MFD_CLOEXEC, MFD_NOEXEC_SEAL, MFD_EXEC = 1, 8, 16


def _copy(name: str) -> str:
    directory = sys.argv[2] if len(sys.argv) > 2 else "."
    path = f"{directory}/{name}"
    shutil.copyfile(ECHO, path)
    os.chmod(path, 0o755)
    return path


# The loader tells a refused mapping in words, and does not always name the errno.
_UNMAPPED = "failed to map segment"


def _ran(argv: list[str], keep: Sequence[int] = ()) -> str:
    """Run it and see whether the marker came back; the loader tells a refused mapping only in words."""
    run = subprocess.run(argv, capture_output=True, check=False, pass_fds=keep)
    if b"marker" in run.stdout:
        return "the image ran"
    raise _in_words(run.stderr.decode(errors="replace"))


def _in_words(text: str) -> Exception:
    for code in (errno.EPERM, errno.EACCES):
        if os.strerror(code) in text or (code == errno.EPERM and _UNMAPPED in text):
            return OSError(code, text)
    return Refused(text)


@probe()
def renamed_binary() -> str:
    return _ran([_copy("python3"), "marker"])


@probe()
def through_loader() -> str:
    return _ran([LOADER, _copy("evil"), "marker"])


@probe()
def script_own_shebang() -> str:
    path = f"{sys.argv[2] if len(sys.argv) > 2 else '.'}/script"
    with open(path, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\necho marker\n")
    os.chmod(path, 0o755)
    return _ran([path])


@probe()
def shebang_to_copy() -> str:
    evil = os.path.abspath(_copy("evil"))
    with open("script", "w", encoding="ascii") as file:
        file.write(f"#!{evil} marker\n")
    os.chmod("script", 0o755)
    return _ran([os.path.abspath("script")])


def _memfd(flags: int) -> int:
    fd = syscall("memfd_create", b"probe", flags)
    with open(ECHO, "rb") as source, open(fd, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)
    return fd


@probe()
def memfd_execveat() -> None:
    _execveat(_memfd(MFD_CLOEXEC))


@probe()
def memfd_exec_flag() -> None:
    _execveat(_memfd(MFD_CLOEXEC | MFD_EXEC))


@probe()
def memfd_chmod_exec() -> None:
    fd = _memfd(MFD_CLOEXEC)
    with contextlib.suppress(PermissionError):  # sealed against it; what is run then shows whether it may be
        os.fchmod(fd, 0o777)
    _execveat(fd)


def _execveat(fd: int) -> None:
    """In a child, since it replaces the process; the child's exit code is the errno."""
    argv = (ctypes.c_char_p * 3)(b"evil", b"marker", None)
    environment = (ctypes.c_char_p * 1)(None)
    _reap(lambda: syscall("execveat", fd, b"", argv, environment, 0x1000))


def _reap(attempt: Callable[[], int]) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(255)
    os.close(writer)
    output = os.read(reader, 100)
    _, status = os.waitpid(child, 0)
    if b"marker" not in output:
        code = os.waitstatus_to_exitcode(status)
        raise CallFailed(code, os.strerror(code), "execveat", child)


@probe()
def memfd_proc_fd() -> str:
    fd = _memfd(0)
    return _ran([f"/proc/self/fd/{fd}", "marker"], (fd,))


@probe()
def tmpfile_exec() -> None:
    """A file without a name, opened for reading alone, since one open for writing is ETXTBSY."""
    fd = os.open(sys.argv[2], os.O_TMPFILE | os.O_RDWR, 0o755)
    with open(ECHO, "rb") as source, open(fd, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    _execveat(again)


@probe()
def dlopen_copy() -> None:
    """Map own code executable from a writable mount: what a loaded extension module would do."""
    shutil.copyfile("/lib/x86_64-linux-gnu/libm.so.6", f"{sys.argv[2]}/evil.so")
    try:
        ctypes.CDLL(os.path.abspath(f"{sys.argv[2]}/evil.so"))
    except OSError as error:
        raise _in_words(str(error)) from error


@probe()
def flipped_execve() -> str:
    """Another thread's worth of race: the name changes between an allowed and a forbidden image while it is run."""
    evil = _copy("evil")
    os.symlink("/usr/bin/true", "a")
    os.symlink(evil, "b")
    flipper = keep_exchanging("a", "b")
    ran = 0
    try:
        for _ in range(200):
            try:
                ran += b"marker" in subprocess.run(["./a", "marker"], capture_output=True, check=False).stdout
            except OSError:
                continue
    finally:
        end(flipper)
    if not ran:
        raise Refused("never ran")
    return f"{ran} of 200"


@probe()
def empty_argv() -> str:
    """CVE-2021-4034: a program started with no argv[0]; a kernel since 5.18 puts an empty one there."""
    child = os.fork()
    if child == 0:
        LIBC.syscall(59, b"/usr/bin/true", (ctypes.c_char_p * 1)(None), (ctypes.c_char_p * 1)(None))
        os._exit(ctypes.get_errno())
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


INTERPRETERS = {
    "python": ["/usr/bin/python3", "-c", "print(open('{}').read())"],
    "bash": ["/bin/bash", "-c", "cat <(cat {})"],
    "perl": ["/usr/bin/perl", "-e", "open(F,'<','{}') or die $!; print <F>"],
    "node": ["/usr/bin/node", "-e", "process.stdout.write(require('fs').readFileSync('{}'))"],
    "find": ["/usr/bin/find", "/", "-maxdepth", "0", "-exec", "cat", "{}", ";"],
    "awk": ["/usr/bin/awk", 'BEGIN {{ system("cat {}") }}'],
    "git": ["/usr/bin/git", "-c", "alias.x=!cat {}", "x"],
}


@probe()
def interpreter() -> str:
    """An allowed interpreter is any program: what it reads must be refused all the same. argv: which, path."""
    argv = [word.format(sys.argv[3]) for word in INTERPRETERS[sys.argv[2]]]
    if not os.access(argv[0], os.X_OK):
        raise OSError(errno.ENOSYS, f"no {argv[0]}")
    run = subprocess.run(argv, capture_output=True, check=False)
    if run.stdout.strip():
        return f"{len(run.stdout)} bytes"
    raise Refused(run.stderr.decode(errors="replace")[-200:])


if __name__ == "__main__":
    main()
