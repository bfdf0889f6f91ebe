"""What the host's /proc says about processes: read from outside, as root, and believed instead of what they say.

Never asks the daemon. Used by the posture, limits and clean-up tests and by the host-side checks of the attacks.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
WAIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as found; it may be gone when its files are read, which is a FileNotFoundError or ESRCH."""

    pid: int
    parent: int
    argv: tuple[str, ...]

    @property
    def path(self) -> Path:
        return PROC / str(self.pid)


def processes() -> dict[int, Process]:
    """Every living process; a zombie has ended and only waits to be reaped, so it is none."""
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            found[int(entry.name)] = Process(int(entry.name), int(fields[1]), tuple(argv))
    return found


def descendants(root: int) -> tuple[Process, ...]:
    """Every living process below that one, parents first."""
    alive = processes()
    found: list[Process] = []
    level = {root}
    while level:
        below = [process for process in alive.values() if process.parent in level]
        found += below
        level = {process.pid for process in below}
    return tuple(found)


def with_argument(root: int, marker: str) -> tuple[Process, ...]:
    """The descendants that have this text in an argument of theirs."""
    return tuple(process for process in descendants(root) if any(marker in word for word in process.argv))


def anywhere(marker: str) -> tuple[Process, ...]:
    """Every living process, whoever's child, with this text in an argument; none of the tests' own."""
    own = os.getpid()
    return tuple(p for p in processes().values() if p.pid != own and any(marker in word for word in p.argv))


def status(pid: int, tid: int = 0) -> dict[str, str]:
    """The fields of /proc/PID/status, or of one of its threads."""
    path = PROC / str(pid) / "task" / str(tid or pid) / "status"
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def blocks(pid: int, signum: int) -> bool:
    """Whether its main thread has that signal wait."""
    return bool(int(status(pid)["SigBlk"], 16) >> (signum - 1) & 1)


def threads(pid: int) -> tuple[int, ...]:
    return tuple(int(entry.name) for entry in (PROC / str(pid) / "task").iterdir())


def namespaces(pid: int) -> dict[str, str]:
    return {name: str((PROC / str(pid) / "ns" / name).readlink()) for name in NAMESPACES}


def resident_bytes(pid: int) -> int:
    return int(status(pid)["VmRSS"].split()[0]) * 1024


def until(met: Callable[[], bool], what: str) -> None:
    """Waits for a state that must come. The bound only ends a hung test, it is no demand on speed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not met():
        if time.monotonic() > deadline:
            raise AssertionError(f"never came to be: {what}")
        time.sleep(0.02)


def daemon_pid(spawner: int) -> int:
    """The daemon below a spawner."""
    for process in descendants(spawner):
        if "sandboxd.daemon" in process.argv:
            return process.pid
    raise AssertionError(f"no daemon below {spawner}: {descendants(spawner)}")


def sandboxes(spawner: int) -> tuple[tuple[Process, ...], ...]:
    """The processes of each pid namespace below a spawner that is not the spawner's own."""
    groups: dict[str, list[Process]] = {}
    own = str((PROC / str(spawner) / "ns" / "pid").readlink())
    for process in descendants(spawner):
        try:
            namespace = str((process.path / "ns" / "pid").readlink())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if namespace != own:
            groups.setdefault(namespace, []).append(process)
    return tuple(tuple(group) for group in groups.values())


def sandboxed_programs(spawner: int) -> tuple[Process, ...]:
    """Every living process in a sandbox below that spawner that runs a program of its own.

    An init, and the child that waits in it for a program, are forks of the spawner and still have its command line.
    """
    own = processes()[spawner].argv
    return tuple(process for group in sandboxes(spawner) for process in group if process.argv != own)


def mounts(pid: int) -> Iterator[tuple[str, str, frozenset[str], str, tuple[str, ...]]]:
    """Of each line of mountinfo: mount point, file system, flags of the mount, source, optional fields (shared:N …)."""
    for line in (PROC / str(pid) / "mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        yield fields[4], kind[0], frozenset(fields[5].split(",")), kind[1], tuple(fields[6:])
