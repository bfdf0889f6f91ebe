"""A real systemd as PID 1 of namespaces of its own, with copies of /etc and empty /run, /tmp, /opt and /var/lib.

Of the machine it changes one cgroup, which it removes. Used by `test_systemd`.
"""

import contextlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import proc, reachable
from tests.daemon import CHECKOUT

SYSTEMD = "/usr/lib/systemd/systemd"
CGROUPS = Path("/sys/fs/cgroup")
START_SECONDS = 60.0

# $1 is a directory with what goes into /etc; the rest are the cgroups that become the roots of their hierarchies.
_ENTER = 'etc=$1; shift; for cgroup; do echo $$ >"$cgroup/cgroup.procs"; done; exec unshare --cgroup "$0" "$etc" "$@"'
# Each with its mode; /tmp is the last, since the stage is there.
_EMPTIED = {"/run": "755", "/opt": "755", "/var/lib": "755", "/tmp": "1777"}
_KEPT = (CHECKOUT, Path(sys.base_prefix))  # what of it lies in an emptied place is put back
_TARGET = "[Unit]\nDescription=Nothing but what a test starts\nDefaultDependencies=no\n"


@dataclass(frozen=True, slots=True)
class Booted:
    """A running systemd. `pid` is the host's; its files are below `root`."""

    pid: int

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "systemctl", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def show(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()


@contextlib.contextmanager
def boot(etc: dict[str, str]) -> Iterator[Booted]:
    """With these files below /etc, by their path there."""
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-systemd-", dir="/tmp"))
    directory.chmod(0o755)
    for name, text in {"systemd/system/empty.target": _TARGET, **etc}.items():
        path = directory / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script = directory / "furnish"
    stage = directory / "stage"
    stage.mkdir()
    script.write_text(_furnishing(stage))
    script.chmod(0o755)
    cgroups = [path / directory.name for path in _hierarchies()]
    try:
        for path in cgroups:
            _make(path)
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--propagation=private")
        command = [*reachable.prefix(CHECKOUT), "/usr/bin/unshare", *namespaces, "/bin/sh", "-ec", _ENTER, str(script)]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen([*command, str(directory / "etc"), *map(str, cgroups)], stdout=log, stderr=log)
        try:
            yield _answering(process, directory / "log")
        finally:
            process.kill()
            process.wait()
    finally:
        for path in cgroups:
            _remove(path)
        shutil.rmtree(directory)


def _furnishing(stage: Path) -> str:
    """The script that furnishes the mount namespace and becomes systemd. No mount is noted in /run, which changes."""
    emptying = "\n".join(_emptying(stage))
    return f"""#!/bin/sh
set -e
etc=$1; shift
mount -n -t proc proc /proc
if [ -e {CGROUPS}/cgroup.controllers ]; then
    umount -n --lazy {CGROUPS}
    mount -n -t cgroup2 cgroup2 {CGROUPS}
else
    for cgroup; do mount -n --bind "$cgroup" "$(dirname "$cgroup")"; done
fi
mount -n -t tmpfs -o mode=755 tmpfs {stage}
cp -a /etc/. "$etc/." {stage}
mount -n --move {stage} /etc
{emptying}
mkdir -p /opt/sandboxd/bin
ln -s {shlex.quote(str(CHECKOUT))}/.venv/bin/sandboxd /opt/sandboxd/bin/sandboxd
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin {SYSTEMD} --system --unit=empty.target --show-status=no
"""


def _emptying(stage: Path) -> Iterator[str]:
    """Commands that build each place on the stage and move it to where it belongs.

    What is kept is put back entry by entry, so that the unit's own files find room even in a checkout at /opt/sandboxd.
    """
    for place, mode in _EMPTIED.items():
        yield f"mount -n -t tmpfs -o mode={mode} tmpfs {stage}"
        for entry in (entry for kept in _KEPT if kept.is_relative_to(place) for entry in kept.iterdir()):
            source, target = shlex.quote(str(entry)), shlex.quote(f"{stage}/{entry.relative_to(place)}")
            yield f'mkdir -p "$(dirname {target})"'
            yield f"{'mkdir' if entry.is_dir() else 'touch'} {target}"
            yield f"mount -n --rbind {source} {target}"
        yield f"mount -n --move {stage} {place}"


def _hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make(path: Path) -> None:
    path.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):  # without these no process may enter
        if (path / name).exists() and (path.parent / "cpuset.sched_load_balance").exists():
            (path / name).write_text((path.parent / name).read_text())


def _answering(process: subprocess.Popen[bytes], log: Path) -> Booted:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # Its children have its command line until they have one of their own.
        for child in (child for child in proc.descendants(process.pid) if child.parent == process.pid):
            booted = Booted(child.pid)
            if child.argv[:1] == (SYSTEMD,) and booted.systemctl("is-active", "empty.target").stdout == "active\n":
                return booted
        time.sleep(0.05)
    raise AssertionError(f"systemd did not come up:\n{log.read_text(errors='replace')[-4000:]}")


def _remove(path: Path) -> None:
    def gone() -> bool:
        with contextlib.suppress(OSError):
            for nested in sorted(path.rglob("*/"), reverse=True):
                nested.rmdir()
            path.rmdir()
        return not path.exists()

    proc.until(gone, f"{path} is empty")
