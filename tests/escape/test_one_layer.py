"""Each layer alone: with every other one off, the attempt that several layers stop is still stopped by this one.

A layer that another one hides could rot unseen. Each is put on by the spawner's own code, see `layers`.
"""

import base64
import errno
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from sandboxd.profile import seccomp
from sandboxd.profile.compile import landlock_rules
from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import Memfd
from sandboxd.spawner import landlock
from sandboxd.spawner.template import WORKSPACE
from tests.daemon import CHECKOUT
from tests.escape.attempt import full_root
from tests.escape.layers import BROKEN, Given
from tests.skips import Lacks, because, need_kernel, need_root

CALLS = ("mount", "umount", "unshare", "setns", "chroot", "sethostname", "mknod")
ROWS = (
    ("run_copy", "noexec", "EACCES"),
    ("run_copy", "landlock", "EACCES"),
    ("run_memfd", "memfd_sysctl", "EACCES"),
    ("run_memfd", "seccomp", "EPERM"),
    *((call, layer, "EPERM") for call in CALLS for layer in ("seccomp", "capabilities")),
    ("core_pattern", "uid", "EACCES"),
    ("core_pattern", "read_only_proc", "EROFS"),
)


@cache
def _default() -> tuple[tuple[tuple[str, str], ...], str]:
    """Landlock rules and filter (base64) of the shipped default profile."""
    spec = load_profiles([CHECKOUT / "profiles"]).get("default").spec
    return tuple(landlock_rules(spec)), base64.b64encode(seccomp.compiled(spec.seccomp, Memfd.SEAL)).decode()


@cache
def _ended(attempt: str, layer: str) -> str:
    """The word "worked", or the name of the errno that the attempt met under that layer."""
    rules, code = _default()
    with tempfile.TemporaryDirectory(prefix="sandboxd-layer-", dir="/var/tmp") as directory:
        own = tuple((directory if path == WORKSPACE else path, access) for path, access in rules)
        run = subprocess.run(
            [sys.executable, "-m", "tests.escape.layers", attempt, layer],
            cwd=CHECKOUT,
            input=Given(directory, own, code).text(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode != BROKEN, run.stderr
    return errno.errorcode[run.returncode] if run.returncode else "worked"


@pytest.mark.parametrize(("attempt", "layer", "answer"), ROWS, ids=["-".join(row[:2]) for row in ROWS])
def test_layer_alone_stops_it(attempt: str, layer: str, answer: str) -> None:
    need_root()
    need_kernel("Landlock", present=layer != "landlock" or landlock.abi() > 0)
    need_kernel("vm.memfd_noexec", present=layer != "memfd_sysctl" or Path("/proc/sys/vm/memfd_noexec").exists())
    control = _ended(attempt, "none")
    if control == "EPERM" and not full_root():
        pytest.skip(because(Lacks.ROOT, f"{attempt} is {control} here even with no layer at all"))
    assert control == "worked"
    assert _ended(attempt, layer) == answer


def test_landlock_does_not_hinder_a_loader_so_the_mount_must() -> None:
    """Why a mount that is both writable and executable is never offered as confinement of what may run."""
    need_root()
    need_kernel("Landlock", present=landlock.abi() > 0)
    assert _ended("map_copy", "landlock") == "worked"
    assert _ended("map_copy", "noexec") == "EPERM"
