"""What sandboxes could leave behind on a host, as one value: compared before and after by the clean-up tests.

Reads /proc and /sys from outside; never asks the daemon, since it may be dead.
"""

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path

from tests import proc
from tests.daemon import RunningDaemon

SANDBOX_IDS = range(0x50000000, 0x80000000)  # of both ranges that the daemons of these tests give out
CGROUPS = Path("/sys/fs/cgroup")
NOT_LEFT = {"journal", "documents", "cursors", "index"}  # the record of what was, which must stay


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Each field is a set of names; empty is clean."""

    programs: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    namespaces: frozenset[str]
    files: frozenset[str]

    def beyond(self, before: "Leftovers") -> dict[str, list[str]]:
        """What is there now and was not before; empty is what a test wants."""
        found = {}
        for field in fields(self):
            if more := sorted(getattr(self, field.name) - getattr(before, field.name)):
                found[field.name] = more
        return found


def of_sandboxes(daemon: RunningDaemon) -> Leftovers:
    """What is there for sandboxes that run or ran, beside the stock of blank ones, which lives with the spawner."""
    return Leftovers(
        programs=frozenset(f"{p.pid} {' '.join(p.argv)}" for p in proc.sandboxed_programs(daemon.process.pid)),
        mounts=host_mounts(),
        cgroups=occupied_cgroups(daemon),
        namespaces=frozenset(),
        files=state_files(daemon),
    )


def of_the_host(daemon: RunningDaemon) -> Leftovers:
    """Everything, for when the spawner itself is dead: then not even blank inits may be there."""
    return Leftovers(
        programs=frozenset(f"{p.pid} {' '.join(p.argv)}" for p in _of_daemon(daemon)),
        mounts=host_mounts(),
        cgroups=frozenset(map(str, cgroups(daemon))),
        namespaces=namespaces(),
        files=state_files(daemon),
    )


def _of_daemon(daemon: RunningDaemon) -> list[proc.Process]:
    """Processes that name this daemon's own files, or run under an id that only sandboxes have.

    Not those of another node that happens to run on this host: they hang below a spawner with other files.
    """
    found = {process.pid: process for process in proc.anywhere(str(daemon.config)) if process.pid != os.getpid()}
    alive = proc.processes()
    foreign = {p.pid for p in alive.values() if "--state-dir" in p.argv and str(daemon.state_dir) not in p.argv}
    for process in alive.values():
        try:
            uid = int(proc.status(process.pid)["Uid"].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if uid in SANDBOX_IDS and foreign.isdisjoint(_with_ancestors(process, alive)):
            found[process.pid] = process
    return list(found.values())


def _with_ancestors(process: proc.Process, alive: dict[int, proc.Process]) -> set[int]:
    line = set()
    current: proc.Process | None = process
    while current is not None and current.pid not in line:
        line.add(current.pid)
        current = alive.get(current.parent)
    return line


def host_mounts() -> frozenset[str]:
    return frozenset(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())


def subtree(daemon: RunningDaemon) -> str:
    """The name that the spawner gives to its cgroups."""
    return "sandboxd-" + hashlib.sha256(bytes(daemon.state_dir)).hexdigest()[:12]


def cgroups(daemon: RunningDaemon) -> tuple[Path, ...]:
    """Cgroups of sandboxes: whatever is below that name in any hierarchy."""
    name = subtree(daemon)
    return tuple(
        Path(directory)
        for directory, _, _ in os.walk(CGROUPS)
        if f"/{name}/" in directory + "/" and not directory.endswith(name)
    )


def occupied_cgroups(daemon: RunningDaemon) -> frozenset[str]:
    """Those that hold a program, so that the stock of blank sandboxes does not count."""
    programs = {process.pid for process in proc.sandboxed_programs(daemon.process.pid)}
    found = set()
    for group in cgroups(daemon):
        try:
            members = {int(line) for line in (group / "cgroup.procs").read_text().split()}
        except (FileNotFoundError, OSError):
            continue
        if members & programs:
            found.add(str(group))
    return frozenset(found)


def namespaces() -> frozenset[str]:
    """Every namespace that some process of this host is in."""
    found = set()
    for pid in proc.processes():
        try:
            found |= set(proc.namespaces(pid).values())
        except OSError:
            continue
    return frozenset(found)


def state_files(daemon: RunningDaemon) -> frozenset[str]:
    """Below the state directory, without the journal."""
    found = set()
    for directory, names, files in os.walk(daemon.state_dir):
        names[:] = [name for name in names if name not in NOT_LEFT]
        found |= {os.path.relpath(f"{directory}/{name}", daemon.state_dir) for name in (*names, *files)}
    return frozenset(found)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
