"""Attempts of the table "Leaks and covert channels": learn about the host, the daemon or another tenant, or signal one.

Paths, where they matter, are argv[2].
"""

import errno
import fcntl
import mmap
import os
import signal
import socket
import struct
import sys

from .probe_kit import Refused, main, probe, syscall


@probe()
def environ_of() -> str:
    with open(f"/proc/{sys.argv[2]}/environ", "rb") as file:
        data = file.read()
    if not data:
        raise Refused("empty")
    return data.decode(errors="replace").replace("\0", " ")


@probe()
def own_environment() -> str:
    return " ".join(sorted(os.environ))


@probe()
def pids() -> str:
    """Processes that /proc lists beside this one and PID 1."""
    return " ".join(name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid()))


@probe()
def inotify_watch() -> None:
    syscall("inotify_add_watch", syscall("inotify_init1", 0), b"/usr/bin", 0x20)


@probe()
def inotify_init() -> None:
    syscall("inotify_init1", 0)


@probe()
def dnotify() -> None:
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # what it tells, should anybody read there just then
    fcntl.fcntl(os.open("/usr/bin", os.O_RDONLY), fcntl.F_NOTIFY, 1)


@probe()
def lease() -> None:
    fcntl.fcntl(os.open("/usr/bin/env", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)


@probe()
def flock_shared() -> None:
    fcntl.flock(os.open("/usr/bin/env", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


@probe()
def record_lock_shared() -> None:
    """A read lock on a shared file: another sandbox sees it with F_GETLK."""
    lock = struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 1, 0)
    fcntl.fcntl(os.open("/usr/bin/env", os.O_RDONLY), fcntl.F_SETLK, lock)


@probe()
def host_name() -> str:
    return socket.gethostname()


@probe()
def cgroup_path() -> str:
    with open("/proc/self/cgroup", encoding="ascii") as file:
        return " ".join(line.strip().rpartition(":")[2] for line in file)


@probe()
def mount_sources() -> str:
    """Paths of the host that mountinfo shows: the root within its file system of each mount."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return " ".join(line.split()[3] for line in file)


@probe()
def address_of_namespace() -> None:
    """NS_GET_PARENT and NS_GET_USERNS lead upwards from a namespace."""
    fcntl.ioctl(os.open("/proc/self/ns/user", os.O_RDONLY), 0xB702)


@probe()
def parent_of_namespace() -> None:
    os.close(fcntl.ioctl(os.open("/proc/self/ns/pid", os.O_RDONLY), 0xB702))


@probe()
def fresh_memory() -> str:
    """Fresh anonymous memory must be zeros."""
    with mmap.mmap(-1, 8 << 20) as memory:
        if memory.read().strip(b"\0"):
            return "not zeros"
    raise Refused("zeros")


@probe()
def ptrace_scope_read() -> str:
    """Kernel stack of PID 1: shows what the launcher does."""
    with open("/proc/1/stack", encoding="ascii") as file:
        return file.readline()


@probe(reached=(errno.ESRCH,))
def scheduler_of_init() -> None:
    os.sched_setaffinity(1, os.sched_getaffinity(1))


@probe()
def priority_of_init() -> None:
    os.setpriority(os.PRIO_PROCESS, 1, os.getpriority(os.PRIO_PROCESS, 1) + 1)


if __name__ == "__main__":
    main()
