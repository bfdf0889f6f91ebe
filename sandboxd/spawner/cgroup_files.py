"""One cgroup directory held open: reading, writing, killing and removing below it, with the full path in every error.

Standard library only. Never sees a name that a tenant chose. Called by `cgroup_v1`, `cgroup_v2` and `cgroup`.
"""

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

REMOVE_SECONDS = 2.0
KILL_SECONDS = 10.0
_PAUSE_SECONDS = 0.0005
_READ_BYTES = 64 * 1024


class Directory:
    """A directory of a cgroup hierarchy."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def open(cls, path: str) -> "Directory":
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def child(self, name: str) -> "Directory":
        """Opened; it has to exist."""
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        return Directory(f"{self.path}/{name}", fd)

    def make(self, name: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=self.fd)
        except OSError as error:
            raise self._named(error, name) from None

    def open_file(self, name: str, flags: int = os.O_RDONLY) -> int:
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            raise self._named(error, name) from None

    def write(self, name: str, value: str) -> None:
        fd = self.open_file(name, os.O_WRONLY)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(
                error.errno, f"{os.strerror(error.errno or 0)} (value {value!r})", f"{self.path}/{name}"
            ) from None
        finally:
            os.close(fd)

    def read(self, name: str) -> str:
        fd = self.open_file(name)
        try:
            return os.read(fd, _READ_BYTES).decode()
        except OSError as error:
            raise self._named(error, name) from None
        finally:
            os.close(fd)

    def has(self, name: str) -> bool:
        return os.access(name, os.F_OK, dir_fd=self.fd)

    def subdirectories(self) -> list[str]:
        with os.scandir(self.fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def pids(self) -> set[int]:
        """Processes in this directory itself, none once it is removed; those of another pid namespace are left out."""
        try:
            with os.fdopen(self.open_file("cgroup.procs"), encoding="ascii") as file:
                return {int(line) for line in file} - {0}
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return set()
            raise

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _named(self, error: OSError, name: str) -> OSError:
        return OSError(error.errno, error.strerror, f"{self.path}/{name}")


def remove_tree(parent: Directory, name: str, deadline: float | None = None) -> None:
    """rmdir, what is below first. While the last process is still exiting that is EBUSY: retried, bounded."""
    deadline = time.monotonic() + REMOVE_SECONDS if deadline is None else deadline
    while True:
        try:
            os.rmdir(name, dir_fd=parent.fd)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise OSError(error.errno, error.strerror, f"{parent.path}/{name}") from None
        with contextlib.suppress(FileNotFoundError):
            directory = parent.child(name)
            try:
                for below in directory.subdirectories():
                    remove_tree(directory, below, deadline)
            finally:
                directory.close()
        time.sleep(_PAUSE_SECONDS)


def kill_members(directory: Directory) -> int:
    """SIGKILL to every process in it and below; how many were still there.

    A pid that was read may have been reused before it is signalled, so the pidfd is opened first and the membership
    read again: what is listed then is what the pidfd refers to.
    """
    seen = 0
    for name in directory.subdirectories():
        with contextlib.suppress(FileNotFoundError):
            below = directory.child(name)
            try:
                seen += kill_members(below)
            finally:
                below.close()
    held: dict[int, int] = {}
    try:
        for pid in directory.pids():
            with contextlib.suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
        for pid in directory.pids() & held.keys():
            seen += 1
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held[pid], signal.SIGKILL)
    finally:
        for pidfd in held.values():
            os.close(pidfd)
    return seen


def stands_still(directory: Directory, threads: str, states: str) -> bool:
    """Whether each of the threads that the file `threads` lists is in one of these states of proc(5).

    For a freezer that does not say yet that it is done: it waits for those which wait for somebody in the kernel, and
    they, too, will stop before their next instruction.
    """
    return all(_state(thread) in states for thread in directory.read(threads).split())


def _state(thread: str) -> str:
    try:
        stat = Path("/proc", thread, "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "X"  # it ended meanwhile
    return stat[stat.rindex(b")") + 2 :][:1].decode()


def kill_until_empty(directory: Directory) -> None:
    """For hierarchies without `cgroup.kill`: signals again until nobody is left, TimeoutError after KILL_SECONDS."""
    deadline = time.monotonic() + KILL_SECONDS
    while kill_members(directory):
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "processes survive SIGKILL", directory.path)
        time.sleep(_PAUSE_SECONDS)


def find_named(root: str, name: str, depth: int = 8) -> list[str]:
    """Directories of that name below `root`: an earlier run may have been started in another cgroup than this one."""
    found: list[str] = []
    if depth == 0:
        return found
    try:
        with os.scandir(root) as entries:
            directories = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # removed meanwhile, or not ours to read
        return found
    for directory in directories:
        path = f"{root}/{directory}"
        if directory == name:
            found.append(path)
        else:
            found += find_named(path, name, depth - 1)
    return found


def block_devices(sys_block: Path = Path("/sys/block")) -> tuple[str, ...]:
    """`major:minor` of the disks, which a bandwidth limit has to name one by one; memory-backed ones left out."""
    devices = []
    try:
        names = sorted(entry.name for entry in sys_block.iterdir())
    except OSError:
        return ()
    for name in names:
        if name.startswith(("loop", "ram", "zram", "nbd", "fd", "sr")):
            continue
        try:
            if int((sys_block / name / "size").read_text()) > 0:
                devices.append((sys_block / name / "dev").read_text().strip())
        except (OSError, ValueError):
            continue
    return tuple(devices)
