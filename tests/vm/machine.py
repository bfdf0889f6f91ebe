"""Boots the virtual machine once, always emulated, and gives back what its serial console said.

Needs nothing of the network. The machine writes to copies of its disks that vanish with it. Used by `test_vm`.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import rootfs

MEMORY_MEGABYTES = 3072


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine's kernel said about itself."""

    kernel: str
    landlock_abi: int
    cgroup_controllers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One boot: what kernel it was, pytest's exit status (None if it never ended), the whole console."""

    facts: Facts | None
    status: int | None
    console: str


def run_pytest(arguments: Sequence[str], timeout_seconds: float) -> Run:
    """Boot, run pytest with these arguments at the root of this checkout, switch off."""
    root = rootfs.root()
    mark = f"vm-{secrets.token_hex(8)}"  # tests print what they like, but not this
    order = {
        "mark": mark,
        "arguments": list(arguments),
        "environment": {name: os.environ[name] for name in ("CI",) if name in os.environ},
    }
    with tempfile.TemporaryDirectory(prefix="sandboxd-vm-", dir="/var/tmp") as name:
        disk = Path(name) / "checkout.img"
        rootfs.checkout_disk(disk, {"tests/vm/.order.json": json.dumps(order)})
        console = _boot(_command(root, disk), timeout_seconds)
    return _read(console, mark)


def _command(root: rootfs.Root, disk: Path) -> list[str]:
    kernel_line = f"console=ttyS0 root=/dev/vda rw init=/first-steps checkout={rootfs.CHECKOUT} loglevel=1 panic=-1"
    drive = "format=raw,if=virtio,snapshot=on,file="
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-nic", "none"),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", f"{MEMORY_MEGABYTES}"),
        *("-kernel", str(root.kernel), "-initrd", str(root.initrd), "-append", kernel_line),
        *("-drive", f"{drive}{root.image}", "-drive", f"{drive}{disk}"),
    ]


def _boot(command: Sequence[str], timeout_seconds: float) -> str:
    """Everything the console said; passed on as it comes, so that `pytest -s` shows progress."""
    said: list[str] = []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
        watchdog = threading.Timer(timeout_seconds, qemu.kill)
        watchdog.start()
        try:
            assert qemu.stdout is not None
            for line in qemu.stdout:
                said.append(line.decode(errors="replace").rstrip("\r\n") + "\n")
                sys.stdout.write(said[-1])
        finally:
            watchdog.cancel()
            qemu.kill()
    return "".join(said)


def _read(console: str, mark: str) -> Run:
    facts: Facts | None = None
    status: int | None = None
    for line in console.splitlines():
        match line.split(" ", 2):
            case [word, "facts", text] if word == mark:
                found = json.loads(text)
                facts = Facts(found["kernel"], found["landlock_abi"], tuple(found["cgroup_controllers"]))
            case [word, "ended", text] if word == mark:
                status = int(text)
            case _:
                pass
    return Run(facts, status, console)
