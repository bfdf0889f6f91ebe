"""Runs the image in a container that gives it what the DaemonSet asks for and no more: runc with such a bundle.

What an engine adds by default is there too: masked and read-only paths of /proc, a read-only root, no devices. Needs
root. Used by `test_image`.
"""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from tests.image.build import CHECKOUT, run

START_SECONDS = 60.0
# Defaults of the engines, see maskedPaths and readonlyPaths of the OCI runtime specification.
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# As the image sets it.
ENVIRONMENT = (
    "PATH=/opt/sandboxd/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "SANDBOXD_ADDRESS=unix:/run/sandboxd/sandboxd.sock",
)
AS_DAEMON = ("setpriv", "--reuid=sandboxd", "--regid=sandboxd", "--clear-groups")

Json = dict[str, "Json"] | list["Json"] | str | int | bool


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    log: Path

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Another program in the same container, as the daemon's user: root may not pass its directories here."""
        return self.run_as_root(*AS_DAEMON, *argv)

    def run_as_root(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = ["runc", "exec", self.name, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def capabilities() -> list[str]:
    daemonset = YAML(typ="safe").load(CHECKOUT / "deploy/kubernetes/base/daemonset.yaml")
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    return [f"CAP_{name}" for name in container["securityContext"]["capabilities"]["add"]]


@contextmanager
def started(rootfs: Path, directory: Path) -> Iterator[Container]:
    """The image's own entry point, once its daemon answers. `directory` is for the bundle and the volumes."""
    name = f"sandboxd-{secrets.token_hex(6)}"
    for volume in ("state", "socket"):
        (directory / volume).mkdir()
    (directory / "config.json").write_text(json.dumps(_bundle(rootfs, directory)))
    log = directory / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(directory), name],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        container = Container(name, log)
        _wait_until_it_answers(container, process)
        yield container
        run(["runc", "kill", name, "TERM"])
        assert process.wait(60) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)
        process.wait()


def _wait_until_it_answers(container: Container, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if container.run("/opt/sandboxd/bin/sandboxctl", "version").returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError(f"the container's daemon does not answer:\n{container.log.read_text()[-4000:]}")


def _bundle(rootfs: Path, directory: Path) -> Json:
    """An OCI runtime bundle's config.json, see the runtime specification."""
    held: Json = list[Json](capabilities())
    sets: Json = dict.fromkeys(("bounding", "effective", "permitted"), held)
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sandboxd", "serve"],
            "env": list[Json](ENVIRONMENT),
            "cwd": "/",
            "capabilities": sets,
            "noNewPrivileges": False,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "sandboxd",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k"),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=64m"),
            _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
            _mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", "size=64m"),
            _mount("/var/lib/sandboxd", "bind", str(directory / "state"), "bind", "rw"),
            _mount("/run/sandboxd", "bind", str(directory / "socket"), "bind", "rw"),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": list[Json](MASKED),
            "readonlyPaths": list[Json](READ_ONLY),
        },
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list[Json](options)}
