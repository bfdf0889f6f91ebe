"""Attempts of the table "Files, /proc, /sys, /dev". The path, where it matters, is argv[2]. Nothing is ever changed:
what would hurt the control's host is only opened for writing, which is where the kernel decides.
"""

import errno
import fcntl
import os
import stat
import struct
import sys
import tempfile

from .probe_kit import Refused, end, in_child, keep_exchanging, main, probe, syscall


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))


@probe(reached=(errno.ETXTBSY,))
def open_write() -> None:
    _open(sys.argv[2], os.O_WRONLY)


@probe()
def open_read_write() -> None:
    _open(sys.argv[2], os.O_RDWR)


@probe()
def read() -> str:
    """A file that is masked is refused as well: by /dev/null over a file, an empty directory over a directory."""
    path = sys.argv[2]
    if stat.S_ISDIR(os.stat(path).st_mode):
        names = os.listdir(path)
        if not names:
            raise Refused("masked by an empty directory")
        return " ".join(names[:5])
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISCHR(os.fstat(fd).st_mode) and os.fstat(fd).st_rdev == os.makedev(1, 3):
        raise Refused("masked by /dev/null")
    return f"{len(os.read(fd, 64))} bytes"


@probe()
def read_addresses() -> str:
    """Kernel addresses that are not zero; /proc/kallsyms and /proc/modules."""
    with open(sys.argv[2], encoding="ascii") as file:
        lines = [line.split() for line in file]
    if not lines:
        raise Refused("empty")
    words = [word for line in lines for word in line if len(word.removeprefix("0x")) == 16]
    if all(int(word, 16) == 0 for word in words):
        raise Refused("only zeros")
    return words[0]


@probe()
def exists() -> str:
    return oct(os.lstat(sys.argv[2]).st_mode)


@probe()
def create() -> None:
    path = f"{sys.argv[2]}/sandboxd-probe-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)


@probe()
def make_directory() -> None:
    path = f"{sys.argv[2]}/sandboxd-probe-{os.getpid()}"
    os.mkdir(path)
    os.rmdir(path)


@probe()
def write_any_sysctl() -> str:
    """Open every file under /proc/sys for writing: one that opens is one too many."""
    opened = []
    seen = 0
    for directory, _, names in os.walk("/proc/sys"):
        for name in names:
            seen += 1
            try:
                _open(f"{directory}/{name}", os.O_WRONLY)
            except OSError:
                continue
            opened.append(f"{directory}/{name}")
    if not opened:
        raise Refused(f"none of {seen} opens for writing")
    return f"{len(opened)} of {seen}, first {opened[0]}"


@probe()
def write_any_proc() -> str:
    """Open every file of /proc outside the processes for writing."""
    opened = []
    for directory, directories, names in os.walk("/proc"):
        if directory == "/proc":
            directories[:] = [name for name in directories if not name.isdigit() and not name.endswith("self")]
        for name in names:
            try:
                _open(f"{directory}/{name}", os.O_WRONLY)
            except OSError:
                continue
            if os.stat(f"{directory}/{name}").st_rdev != os.makedev(1, 3):
                opened.append(f"{directory}/{name}")
    if not opened:
        raise Refused("none opens for writing")
    return f"{len(opened)}, first {opened[0]}"


@probe()
def write_uid_map() -> None:
    def remap() -> None:
        uid = os.geteuid()
        try:
            syscall("unshare", 0x10000000)
        except OSError:
            pass
        with open("/proc/self/uid_map", "w", encoding="ascii") as file:
            file.write(f"0 {uid} 1\n")

    in_child(remap)


@probe()
def write_setgroups() -> None:
    def rewrite() -> None:
        try:
            syscall("unshare", 0x10000000)
        except OSError:
            pass
        with open("/proc/self/setgroups", "w", encoding="ascii") as file:
            file.write("allow\n")

    in_child(rewrite)


@probe()
def hard_link() -> None:
    os.link(sys.argv[2], f"linked-{os.getpid()}")


@probe()
def immutable() -> None:
    fd, path = tempfile.mkstemp(dir=".")
    word = bytearray(8)
    fcntl.ioctl(fd, 0x80086601, word)
    flags = struct.unpack("<q", word)[0] | 0x10
    fcntl.ioctl(fd, 0x40086602, struct.pack("<q", flags))
    fcntl.ioctl(fd, 0x40086602, struct.pack("<q", flags & ~0x10))
    os.unlink(path)


@probe()
def openat2_read() -> None:
    syscall("openat2", -100, sys.argv[2].encode(), struct.pack("<QQQ", 0, 0, 0), 24)


@probe()
def open_old_read() -> None:
    syscall("open", sys.argv[2].encode(), 0, 0)


@probe()
def creat() -> None:
    syscall("creat", f"{sys.argv[2]}/sandboxd-probe".encode(), 0o600)
    os.unlink(f"{sys.argv[2]}/sandboxd-probe")


@probe()
def flipped_open() -> str:
    """Open a name that another process keeps exchanging between an own file and the forbidden one, 2000 times."""
    forbidden = sys.argv[2]
    with open("own", "w", encoding="ascii") as file:
        file.write("own")
    os.symlink("own", "a")
    os.symlink(forbidden, "b")
    flipper = keep_exchanging("a", "b")
    stolen = 0
    try:
        for _ in range(2000):
            try:
                with open("a", "rb") as handle:
                    stolen += handle.read() != b"own"
            except OSError:
                continue
    finally:
        end(flipper)
    if not stolen:
        raise Refused("never read")
    return f"{stolen} of 2000"


@probe()
def list_devices() -> str:
    return " ".join(sorted(os.listdir("/dev")))


@probe()
def hole_reads() -> str:
    """Holes and grown files must read as zeros."""
    with open("hole", "w+b") as file:
        file.truncate(1 << 20)
        data = file.read()
    if not data.strip(b"\0"):
        raise Refused("zeros")
    return "not zeros"


if __name__ == "__main__":
    main()
