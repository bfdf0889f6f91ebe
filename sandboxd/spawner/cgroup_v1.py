"""Cgroup v1: one directory per controller hierarchy, below this process's own cgroup in each of them.

Standard library only. Never writes outside `<own cgroup>/<subtree>`. Made by `cgroup.detect`; formats and rules:
Linux Documentation/admin-guide/cgroup-v1/.
"""

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from sandboxd.spawner import counters
from sandboxd.spawner.cgroup_base import CgroupLimits, checked_sandbox_id
from sandboxd.spawner.cgroup_files import (
    Directory,
    block_devices,
    find_named,
    kill_members,
    kill_until_empty,
    remove_tree,
    stands_still,
)

_FREEZER = "freezer.state"
_FROZEN, _THAWED = "FROZEN", "THAWED"
_NOT_RUNNING = "DTtZX"  # in the freezer a thread is in D, as one is that waits for an answer to its system call
# The freezer first: what an earlier run left there frozen dies in no hierarchy before it is thawed.
CONTROLLERS = ("freezer", "memory", "pids", "cpu", "cpuacct", "blkio")
_PERIOD_US = 100_000  # the kernel's default, so it is never written
_MIN_QUOTA_US = 1_000
_SHARES_OF_A_PROCESS = 1024


class V1Tree:
    """`own` maps a controller to the open directory of this process's cgroup there; the tree takes it over."""

    version = "v1"
    outlived = True

    def __init__(self, subtree: str, own: Mapping[str, Directory], roots: Mapping[str, str], reason: str = "") -> None:
        self.reason = reason
        self._subtree = subtree
        self._own = dict(own)
        self._roots = dict(roots)
        self._base: dict[str, Directory] = {}
        for controller, directory in own.items():
            with contextlib.suppress(FileExistsError):
                directory.make(subtree)
            self._base[controller] = directory.child(subtree)
        # Controllers that are mounted together share one directory: made, joined and removed once.
        self._hierarchies = _one_per_directory(self._base)
        self.controllers = frozenset("io" if name == "blkio" else name for name in self._base)
        self._devices = block_devices()
        memory = self._base.get("memory")
        self._memsw = memory is not None and memory.has("memory.memsw.limit_in_bytes")
        if "cpu" in self._base and self._base["cpu"].has("cpu.shares"):  # not on a kernel without fair group scheduling
            # A group's shares are split between the CPUs it runs on: with the default all sandboxes together would
            # weigh as a part of one process on each, and on a busy node a short program would wait for its turn.
            self._base["cpu"].write("cpu.shares", str(_SHARES_OF_A_PROCESS * (os.cpu_count() or 1)))
        self._cpus_ceiling = _cpus_ceiling(self._own["cpu"], self._roots["cpu"]) if "cpu" in self._own else 0.0

    def create(self, sandbox_id: str) -> "V1Cgroup":
        checked_sandbox_id(sandbox_id)
        made: list[Directory] = []
        try:
            for base in self._hierarchies:
                base.make(sandbox_id)
                made.append(base)
            if "memory" in self._base and not self._memsw:
                # No swap accounting: the nearest thing is to ask the kernel not to swap this cgroup out.
                self._base["memory"].write(f"{sandbox_id}/memory.swappiness", "0")
        except OSError:
            for base in made:
                remove_tree(base, sandbox_id)
            raise
        return V1Cgroup(
            sandbox_id, self._base, self._hierarchies, self._devices, memsw=self._memsw, cpus_ceiling=self._cpus_ceiling
        )

    def held(self) -> tuple[int, ...]:
        return (self._base["freezer"].fd,) if "freezer" in self._base else ()

    def let_die(self) -> None:
        base = self._base.get("freezer")
        if base is None:
            return
        for name in base.subdirectories():
            with contextlib.suppress(FileNotFoundError):
                directory = base.child(name)
                try:
                    _let_die(directory)
                finally:
                    directory.close()

    def reconcile(self) -> int:
        left: set[str] = set()
        for controller, base in self._base.items():
            left |= _clear(base)
            for path in find_named(self._roots[controller], self._subtree):
                if path == base.path:
                    continue
                stray = Directory.open(path)
                try:
                    left |= _clear(stray)
                finally:
                    stray.close()
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        return len(left)

    def close(self) -> None:
        for controller, directory in self._own.items():
            self._base[controller].close()
            # Another controller of the same mount may have removed it already; a living sandbox keeps it.
            with contextlib.suppress(OSError):
                os.rmdir(self._subtree, dir_fd=directory.fd)
            directory.close()


class V1Cgroup:
    """One sandbox. v1 has no `cgroup.kill`: `kill` stops forks first (`pids.max` 0), so no fork bomb outruns it."""

    directory_fd: int | None = None

    def __init__(
        self,
        sandbox_id: str,
        base: Mapping[str, Directory],
        hierarchies: tuple[Directory, ...],
        devices: tuple[str, ...],
        *,
        memsw: bool,
        cpus_ceiling: float,
    ) -> None:
        self._id = sandbox_id
        self._base = base
        self._hierarchies = hierarchies
        self._devices = devices
        self._memsw = memsw
        self._cpus_ceiling = cpus_ceiling
        self._memory_bytes = 0
        self._written: dict[str, str] = {}

    def attach(self, pid: int) -> None:
        for base in self._hierarchies:
            base.write(f"{self._id}/tasks", str(pid))

    def limit(self, limits: CgroupLimits) -> tuple[str, ...]:
        names: list[str] = []
        if "memory" in self._base:
            self._limit_memory(limits.memory_bytes)
            if limits.memory_bytes:
                names += ["memory", "swap"] if self._memsw else ["memory"]
        if "pids" in self._base:
            self._write("pids", "pids.max", str(limits.pids) if limits.pids else "max", default="max")
            if limits.pids:
                names.append("pids")
        if "cpu" in self._base and self._limit_cpus(limits.cpus):
            names.append("cpus")
        if "blkio" in self._base and self._limit_io(limits):
            names.append("io")
        return tuple(names)

    def _limit_memory(self, memory_bytes: int) -> None:
        value = str(memory_bytes) if memory_bytes else "-1"
        files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] if self._memsw else ["memory.limit_in_bytes"]
        # memory+swap may never be below memory alone, so the order depends on the direction.
        raising = not memory_bytes or 0 < self._memory_bytes < memory_bytes
        for name in reversed(files) if raising else files:
            self._write("memory", name, value, default="-1")
        self._memory_bytes = memory_bytes

    def _limit_cpus(self, cpus: float) -> bool:
        quota = str(max(_MIN_QUOTA_US, round(cpus * _PERIOD_US))) if cpus else "-1"
        if cpus and self._cpus_ceiling and cpus >= self._cpus_ceiling:
            quota = "-1"  # v1 refuses a quota above the parent's with EINVAL; the parent's, which is tighter, holds
        self._write("cpu", "cpu.cfs_quota_us", quota, default="-1")
        return cpus > 0

    def _limit_io(self, limits: CgroupLimits) -> bool:
        for name, rate in (
            ("blkio.throttle.read_bps_device", limits.io_read_bytes_per_second),
            ("blkio.throttle.write_bps_device", limits.io_write_bytes_per_second),
        ):
            for device in self._devices:
                self._write("blkio", name, f"{device} {rate}", default=f"{device} 0", key=f"{name} {device}")
        wanted = limits.io_read_bytes_per_second or limits.io_write_bytes_per_second
        return bool(wanted and self._devices)

    def _write(self, controller: str, name: str, value: str, *, default: str, key: str = "") -> None:
        if self._written.get(key or name, default) == value:
            return
        self._base[controller].write(f"{self._id}/{name}", value)
        self._written[key or name] = value

    def counters(self) -> tuple[tuple[str, int], ...]:
        opened: list[tuple[str, int]] = []
        try:
            for controller, name in counters.V1_FILES:
                if controller in self._base:
                    with contextlib.suppress(FileNotFoundError):
                        opened.append((name, self._base[controller].open_file(f"{self._id}/{name}")))
            oom_control = dict(opened).get("memory.oom_control")
            if oom_control is not None:
                with contextlib.suppress(FileNotFoundError):  # PREEMPT_RT kernels have no event_control
                    opened.append((counters.OOM, self._oom_eventfd(oom_control)))
        except OSError:
            for _, fd in opened:
                os.close(fd)
            raise
        return tuple(opened)

    def _oom_eventfd(self, oom_control: int) -> int:
        eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._base["memory"].write(f"{self._id}/cgroup.event_control", f"{eventfd} {oom_control}")
        except OSError:
            os.close(eventfd)
            raise
        return eventfd

    def usage(self) -> tuple[tuple[str, float], ...]:
        texts: dict[str, str] = {}
        for controller, name in counters.V1_FILES:
            if controller in self._base:
                with contextlib.suppress(OSError):
                    texts[name] = self._base[controller].read(f"{self._id}/{name}")
        return counters.parse(texts)

    def freeze(self) -> bool:
        directory = self._freezer()
        try:
            directory.write(_FREEZER, _FROZEN)
            return directory.read(_FREEZER).strip() == _FROZEN or stands_still(directory, "tasks", _NOT_RUNNING)
        finally:
            directory.close()

    def thaw(self) -> None:
        directory = self._freezer()
        try:
            directory.write(_FREEZER, _THAWED)
        finally:
            directory.close()

    def let_die(self) -> None:
        if "freezer" not in self._base:
            return
        with contextlib.suppress(FileNotFoundError):
            directory = self._freezer()
            try:
                _let_die(directory)
            finally:
                directory.close()

    def _freezer(self) -> Directory:
        if "freezer" not in self._base:
            raise OSError(errno.EOPNOTSUPP, "the freezer of cgroup v1 is not mounted or not writable")
        return self._base["freezer"].child(self._id)

    def kill(self) -> None:
        for step in (_stop_forks, _let_die, kill_until_empty):
            for base in self._hierarchies:
                with contextlib.suppress(FileNotFoundError):
                    directory = base.child(self._id)
                    try:
                        step(directory)
                    finally:
                        directory.close()

    def remove(self) -> None:
        for base in self._hierarchies:
            remove_tree(base, self._id)


def _one_per_directory(base: Mapping[str, Directory]) -> tuple[Directory, ...]:
    by_path = {directory.path: directory for directory in base.values()}
    # pids first: `kill` stops forks there before it signals anybody.
    first = base.get("pids")
    rest = [directory for path, directory in by_path.items() if first is None or path != first.path]
    return (first, *rest) if first is not None else tuple(rest)


def _stop_forks(directory: Directory) -> None:
    try:
        directory.write("pids.max", "0")
    except FileNotFoundError:
        return


def _let_die(directory: Directory) -> None:
    """If it is one of the freezer: a frozen process dies of its SIGKILL when it is thawed, and before all else."""
    if directory.has(_FREEZER):
        kill_members(directory)
        directory.write(_FREEZER, _THAWED)


def _clear(base: Directory) -> set[str]:
    """Kill and remove each sandbox below; their names."""
    names = set(base.subdirectories())
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            directory = base.child(name)
            try:
                _stop_forks(directory)
                _let_die(directory)
                kill_until_empty(directory)
            finally:
                directory.close()
        remove_tree(base, name)
    return names


def _cpus_ceiling(own: Directory, root: str) -> float:
    """The tightest CPU quota of this process's own cgroup and those above it, 0 for none."""
    tightest = 0.0
    path = own.path
    while path.startswith(root):
        try:
            directory = Directory.open(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES):
                break
            raise
        try:
            quota, period = int(directory.read("cpu.cfs_quota_us")), int(directory.read("cpu.cfs_period_us"))
        except FileNotFoundError:  # the root cgroup has no quota on newer kernels
            quota, period = -1, _PERIOD_US
        finally:
            directory.close()
        if quota > 0:
            tightest = min(tightest or quota / period, quota / period)
        if path == root:
            break
        path = path.rpartition("/")[0]
    return tightest
