"""What we are measured beside: the same program, started bare and by other sandboxes as a user would call them.

Never makes a peer look slow: each gets its plainest fast call. A peer that is not installed, or does not run here, is
named with its reason and left out. Called by `race`.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import timing
from sandboxd.spawner import sys as kernel
from sandboxd.spawner import template

PROFILES = Path(__file__).resolve().parent.parent / "profiles"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_LINKS = ("bin", "sbin", "lib", "lib64")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")


@dataclass(frozen=True, slots=True)
class Peer:
    """`argv` builds the command line for a program; `opened` is what it finds as descriptor 9."""

    name: str
    argv: Callable[[Sequence[str]], list[str]]
    opened: Path | None = None

    def run(self, program: Sequence[str]) -> timing.Sample:
        return timing.run(self.argv(program), ENVIRONMENT, self.opened)


def peers(scratch: Path) -> tuple[list[Peer], list[str]]:
    """Those that run here, and a sentence about each that does not."""
    found: list[Peer] = [Peer("posix_spawn, no isolation", list)]
    missing: list[str] = []
    for command, package, build in (
        ("bwrap", "bubblewrap", _bubblewraps),
        ("crun", "crun", _cruns),
        ("firejail", "firejail", _firejails),
    ):
        path = shutil.which(command)
        if path is None:
            missing.append(f"{command} is not installed: apt-get install {package}")
            continue
        for peer in build(path, scratch):
            try:
                peer.run(["/bin/true"])
            except (timing.RunFailed, OSError) as error:
                missing.append(f"{peer.name} does not run here: {error}")
            else:
                found.append(peer)
    return found, missing


def _bubblewraps(path: str, scratch: Path) -> list[Peer]:
    view = ["--unshare-all", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for name in _LINKS:
        if Path("/", name).is_symlink():
            view += ["--symlink", f"usr/{name}", f"/{name}"]
    program = scratch / "filter.bpf"
    program.write_bytes(_our_filter())
    instructions = program.stat().st_size // 8
    return [
        Peer("bubblewrap", lambda argv: [path, *view, *argv]),
        Peer(
            f"bubblewrap, seccomp ({instructions} instructions)",
            lambda argv: [path, *view, "--seccomp", "9", *argv],
            program,
        ),
    ]


def _our_filter() -> bytes:
    """That of the profile that we run with, so that the filter is no difference."""
    compiled = subprocess.run(
        [sys.executable, "-m", "sandboxd.profile.compile", "--memfd", "sysctl", str(PROFILES)],
        capture_output=True,
        text=True,
        check=True,
    )
    (default,) = (found for found in template.load(compiled.stdout) if found.name == "default")
    return default.seccomp


def _cruns(path: str, scratch: Path) -> list[Peer]:
    serial = itertools.count()
    if os.geteuid() != 0:
        return []
    hybrid = _leave_hybrid()

    def command(manager: str, argv: Sequence[str]) -> list[str]:
        bundle = _bundle(scratch, argv)
        name = f"bench-{os.getpid()}-{next(serial)}"
        return [
            path,
            "--root",
            str(scratch / "crun"),
            "--cgroup-manager",
            manager,
            "run",
            "--bundle",
            str(bundle),
            name,
        ]

    found = [Peer("crun, no cgroup", lambda argv: command("disabled", argv))]
    # On a hybrid host a failed attempt would leave directories in every hierarchy.
    return found if hybrid else [*found, Peer("crun, cgroup", lambda argv: command("cgroupfs", argv))]


def _leave_hybrid() -> bool:
    """crun refuses a host that has both cgroup versions: then, for this thread and what it starts, only v1 is there."""
    unified = Path("/sys/fs/cgroup/unified")
    hybrid = unified.is_mount()
    if hybrid:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.umount2(str(unified), kernel.MNT_DETACH)
    return hybrid


def _bundle(scratch: Path, argv: Sequence[str]) -> Path:
    """An OCI bundle for that program, made once."""
    bundle = scratch / f"bundle-{Path(argv[0]).name}"
    if bundle.exists():
        return bundle
    root = bundle / "rootfs"
    root.mkdir(parents=True)
    for name in ("usr", "proc", "dev", "tmp"):
        (root / name).mkdir()
    for name in _LINKS:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    mounts = [
        {"destination": "/usr", "source": "/usr", "type": "bind", "options": ["rbind", "ro"]},
        {"destination": "/proc", "source": "proc", "type": "proc"},
        {"destination": "/dev", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/tmp", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid"]},
    ]
    environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    user = {"uid": 65534, "gid": 65534}
    process = {"args": list(argv), "env": environment, "cwd": "/", "noNewPrivileges": True, "user": user}
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": True},
        "process": process,
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES], "resources": {"pids": {"limit": 64}}},
    }
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _firejails(path: str, scratch: Path) -> list[Peer]:
    options = ["--quiet", "--noprofile", "--net=none", "--seccomp", "--caps.drop=all", "--private-tmp", "--private-dev"]
    return [Peer("firejail", lambda argv: [path, *options, "--", *argv])]
