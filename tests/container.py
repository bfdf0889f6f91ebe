"""Runs a command as PID 1 of what an engine calls a container: as Docker and a kubelet set one up, by the manifest.

Fresh namespaces, /proc masked and read-only in part, the root, /sys and the cgroups read-only, the capabilities that
are named and no other. Stands before the command line of `tests.daemon`; its signals reach the command.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
CGROUPS = Path("/sys/fs/cgroup")
# The defaults of the runtime specification as containerd, CRI-O and Docker set them.
MASKED = (
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "scsi",
)  # fmt: skip
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")

_libc = ctypes.CDLL(None, use_errno=True)


def prefix(capabilities: tuple[str, ...]) -> list[str]:
    """What to put before a command line; names as in a manifest, without CAP_."""
    return [sys.executable, "-m", "tests.container", ",".join(f"+{name.lower()}" for name in capabilities)]


def furnish(cgroup: "_V1 | _V2") -> None:
    """In the new namespaces, as their PID 1."""
    _call("unshare", _libc.unshare(CLONE_NEWNS))
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in MASKED:
        path = Path("/proc", name)
        if path.is_dir():
            _mount("tmpfs", str(path), "tmpfs", MS_RDONLY, "size=0k")
        elif path.exists():
            _mount("/dev/null", str(path), "", MS_BIND)
    for path in filter(Path.exists, (Path("/proc", name) for name in READ_ONLY)):
        _make_read_only(path)
    cgroup.show()
    _mount("/tmp", "/tmp", "", MS_BIND)  # an emptyDir; state and socket of the tests are below it
    _make_read_only(Path("/sys"))
    _make_read_only(Path("/"))


def _make_read_only(path: Path) -> None:
    if path != Path("/"):
        _mount(str(path), str(path), "", MS_BIND | MS_REC)
    _mount("none", str(path), "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _call(f"mount {target}", result)


def _call(what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class _V2:
    """The container's own cgroup, with all controllers; the engine's processes are beside it, not in it."""

    def __init__(self) -> None:
        (path,) = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
        self._above = CGROUPS / path.strip("/")
        self._engine, self._container = (self._above / f"{name}-{os.getpid()}" for name in ("engine", "container"))
        self._engine.mkdir()
        self._container.mkdir()
        _join(self._engine)  # a cgroup that has controllers below may hold no process
        (self._above / "cgroup.subtree_control").write_text("+cpu +io +memory +pids")
        _join(self._container)

    def leave(self) -> None:
        _join(self._engine)

    def show(self) -> None:
        """In the container: a mount made in its cgroup namespace has its own cgroup as the root."""
        _call("unshare cgroup", _libc.unshare(CLONE_NEWCGROUP))
        _call("umount", _libc.umount2(bytes(CGROUPS), MNT_DETACH))  # the kernel stacks no file system on itself
        _mount("cgroup", str(CGROUPS), "cgroup2", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

    def remove(self) -> None:
        for path in (*sorted(self._container.rglob("*/"), reverse=True), self._container):
            path.rmdir()
        with contextlib.suppress(OSError):  # not where the cgroup above has controllers, and then it ends with that one
            _join(self._above)
            self._engine.rmdir()


def _join(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


class _V1:
    """One cgroup of its own in each hierarchy. Engines make no cgroup namespace here, so it keeps its path."""

    def __init__(self) -> None:
        name = f"sandboxd-test-{os.getpid()}"
        points = [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]
        self._own = {point: point / name for point in points if (point / "tasks").exists()}
        for path in self._own.values():
            path.mkdir()
            if path.parent.name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((path.parent / file).read_text())
            _join(path)

    def leave(self) -> None:
        for point in self._own:
            _join(point)

    def show(self) -> None:
        for point, path in self._own.items():
            _mount(str(path), str(point), "", MS_BIND)
            _mount("none", str(point), "", MS_BIND | MS_REMOUNT | MS_RDONLY)

    def remove(self) -> None:
        for path in self._own.values():
            path.rmdir()


def main(arguments: list[str]) -> int:
    capabilities, command = arguments[0], arguments[1:]
    cgroup = _V2() if (CGROUPS / "cgroup.controllers").exists() else _V1()
    _call("unshare", _libc.unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET))
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        furnish(cgroup)
        os.close(go)
        os.read(wait, 1)
        only = ",".join(filter(None, ("-all", capabilities)))
        os.execv("/usr/bin/setpriv", ["setpriv", f"--bounding-set={only}", "--inh-caps=-all", *command])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: _pass_on(child, number))
    cgroup.leave()
    os.close(go)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    cgroup.remove()
    return status & 0xFF


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
