"""Cgroup v2: one directory per sandbox below `<parent>/<subtree>`, controllers switched on for it on the way down.

Standard library only. A cgroup with controllers for its children may hold no process itself, so this process (and what
shares its cgroup) moves into the leaf `supervisor` first, unless the parent is the root. Made by `cgroup.detect`;
formats and rules: Linux Documentation/admin-guide/cgroup-v2.rst.
"""

import contextlib
import errno
import os
import select
import time
from pathlib import Path

from sandboxd.spawner import counters
from sandboxd.spawner.cgroup_base import CgroupLimits, checked_sandbox_id
from sandboxd.spawner.cgroup_files import (
    KILL_SECONDS,
    Directory,
    block_devices,
    find_named,
    kill_until_empty,
    remove_tree,
    stands_still,
)

SUPERVISOR = "supervisor"
WANTED = ("memory", "pids", "cpu", "io")
_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000
_MOVE_ROUNDS = 10
_NOT_RUNNING = "SDTtZX"  # a frozen thread is in S: whoever else was has been woken by the freezer


class V2Tree:
    """`parent` is the open directory that the subtree is made in; the tree takes it over. `root` is the mount point."""

    version = "v2"
    outlived = False  # what is killed dies, frozen or not, and all is killed with its parent

    def __init__(self, subtree: str, parent: Directory, root: str, reason: str = "") -> None:
        self._subtree = subtree
        self._parent = parent
        self._root = root
        with contextlib.suppress(FileExistsError):
            parent.make(subtree)
        self._base = parent.child(subtree)
        self.controllers = frozenset(enable(self._base, self._base.read("cgroup.controllers").split()))
        self.reason = reason
        self._devices = block_devices()
        self._swap = self._oom_group = False
        self._look_at_files()

    def _look_at_files(self) -> None:
        """Which optional files a child gets here; they do not exist in a root cgroup, so a child is asked."""
        if "memory" not in self.controllers:
            return
        trial = f"trial-{os.getpid()}"
        self._base.make(trial)
        try:
            self._swap = self._base.has(f"{trial}/memory.swap.max")
            self._oom_group = self._base.has(f"{trial}/memory.oom.group")
        finally:
            remove_tree(self._base, trial)

    def create(self, sandbox_id: str) -> "V2Cgroup":
        self._base.make(checked_sandbox_id(sandbox_id))
        try:
            # The same for each sandbox, so written before one is asked for.
            if self._swap:
                self._base.write(f"{sandbox_id}/memory.swap.max", "0")
            if self._oom_group:
                self._base.write(f"{sandbox_id}/memory.oom.group", "1")
            directory = self._base.child(sandbox_id)
        except OSError:
            remove_tree(self._base, sandbox_id)
            raise
        return V2Cgroup(sandbox_id, self._base, directory, self.controllers, self._devices, swap=self._swap)

    def held(self) -> tuple[int, ...]:
        return ()

    def let_die(self) -> None:
        pass

    def reconcile(self) -> int:
        left = _clear(self._base)
        for path in find_named(self._root, self._subtree):
            if path == self._base.path:
                continue
            stray = Directory.open(path)
            try:
                left += _clear(stray)
            finally:
                stray.close()
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        return left

    def close(self) -> None:
        self._base.close()
        with contextlib.suppress(OSError):  # a living sandbox keeps it
            os.rmdir(self._subtree, dir_fd=self._parent.fd)
            leave_leaf(self._parent)
        self._parent.close()


class V2Cgroup:
    """One sandbox."""

    def __init__(
        self,
        sandbox_id: str,
        base: Directory,
        directory: Directory,
        controllers: frozenset[str],
        devices: tuple[str, ...],
        *,
        swap: bool,
    ) -> None:
        self._id = sandbox_id
        self._base = base
        self._directory = directory
        self._controllers = controllers
        self._devices = devices
        self._swap = swap
        self._written: dict[str, str] = {}
        self.directory_fd: int | None = directory.fd

    def attach(self, pid: int) -> None:
        self._directory.write("cgroup.procs", str(pid))

    def limit(self, limits: CgroupLimits) -> tuple[str, ...]:
        names: list[str] = []
        if "memory" in self._controllers:
            self._write("memory.max", str(limits.memory_bytes or "max"), default="max")
            if limits.memory_bytes:
                names += ["memory", "swap"] if self._swap else ["memory"]
        if "pids" in self._controllers:
            self._write("pids.max", str(limits.pids or "max"), default="max")
            if limits.pids:
                names.append("pids")
        if "cpu" in self._controllers:
            quota = str(max(_MIN_QUOTA_US, round(limits.cpus * _PERIOD_US))) if limits.cpus else "max"
            self._write("cpu.max", quota, default="max")
            if limits.cpus:
                names.append("cpus")
        if "io" in self._controllers and self._limit_io(limits):
            names.append("io")
        return tuple(names)

    def _limit_io(self, limits: CgroupLimits) -> bool:
        rates = f"rbps={limits.io_read_bytes_per_second or 'max'} wbps={limits.io_write_bytes_per_second or 'max'}"
        for device in self._devices:
            self._write("io.max", f"{device} {rates}", default=f"{device} rbps=max wbps=max", key=f"io.max {device}")
        return bool(self._devices and (limits.io_read_bytes_per_second or limits.io_write_bytes_per_second))

    def _write(self, name: str, value: str, *, default: str, key: str = "") -> None:
        if self._written.get(key or name, default) == value:
            return
        self._directory.write(name, value)
        self._written[key or name] = value

    def counters(self) -> tuple[tuple[str, int], ...]:
        opened: list[tuple[str, int]] = []
        try:
            for name in counters.V2_FILES:
                with contextlib.suppress(FileNotFoundError):
                    opened.append((name, self._directory.open_file(name)))
        except OSError:
            for _, fd in opened:
                os.close(fd)
            raise
        return tuple(opened)

    def usage(self) -> tuple[tuple[str, float], ...]:
        texts: dict[str, str] = {}
        for name in counters.V2_FILES:
            with contextlib.suppress(OSError):
                texts[name] = self._directory.read(name)
        return counters.parse(texts)

    def freeze(self) -> bool:
        self._directory.write("cgroup.freeze", "1")
        events = counters.flat_keyed(self._directory.read("cgroup.events"))
        return events.get("frozen") == 1 or stands_still(self._directory, "cgroup.threads", _NOT_RUNNING)

    def thaw(self) -> None:
        self._directory.write("cgroup.freeze", "0")

    def let_die(self) -> None:
        pass

    def kill(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            directory = self._base.child(self._id)
            try:
                kill(directory)
            finally:
                directory.close()

    def remove(self) -> None:
        self._directory.close()
        self.directory_fd = None
        remove_tree(self._base, self._id)


def kill(directory: Directory) -> None:
    """Everything below, at once (Linux 5.14) or signal by signal; returns when the kernel says that it is empty."""
    try:
        directory.write("cgroup.kill", "1")
    except FileNotFoundError:
        kill_until_empty(directory)
        return
    deadline = time.monotonic() + KILL_SECONDS
    events = directory.open_file("cgroup.events")
    try:
        poller = select.poll()
        poller.register(events, select.POLLPRI)
        while counters.flat_keyed(os.pread(events, 4096, 0).decode()).get("populated"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "processes survive cgroup.kill", directory.path)
            poller.poll(left * 1000)
    except OSError as error:
        if error.errno != errno.ENODEV:  # removed meanwhile: empty
            raise
    finally:
        os.close(events)


def enable(directory: Directory, controllers: list[str]) -> list[str]:
    """Switch on for the children what is wanted and offered, one by one; those that are on afterwards."""
    for controller in WANTED:
        if controller in controllers:
            with contextlib.suppress(OSError):  # what did not work is seen below, by its absence
                directory.write("cgroup.subtree_control", f"+{controller}")
    return [name for name in directory.read("cgroup.subtree_control").split() if name in WANTED]


def move_to_leaf(parent: Directory) -> None:
    """Move every process of `parent` into its leaf `supervisor`; OSError (EBUSY) if new ones keep coming."""
    with contextlib.suppress(FileExistsError):
        parent.make(SUPERVISOR)
    for _ in range(_MOVE_ROUNDS):
        pids = parent.pids()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                parent.write(f"{SUPERVISOR}/cgroup.procs", str(pid))
    raise OSError(errno.EBUSY, "processes keep appearing in the cgroup", parent.path)


def leave_leaf(parent: Directory) -> None:
    """Undo `move_to_leaf` and `enable`, if nobody else has a cgroup here."""
    if parent.subdirectories() != [SUPERVISOR]:
        return
    for controller in parent.read("cgroup.subtree_control").split():
        parent.write("cgroup.subtree_control", f"-{controller}")
    leaf = parent.child(SUPERVISOR)
    try:
        for pid in leaf.pids():
            with contextlib.suppress(ProcessLookupError):
                parent.write("cgroup.procs", str(pid))
    finally:
        leaf.close()
    remove_tree(parent, SUPERVISOR)


def _clear(base: Directory) -> int:
    names = base.subdirectories()
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            directory = base.child(name)
            try:
                kill(directory)
            finally:
                directory.close()
        remove_tree(base, name)
    return len(names)
