"""The guard against real frozen processes: it acts when whoever started it is gone, and never before."""

import os
import signal
from contextlib import suppress

from sandboxd.spawner.cgroup_v1 import V1Tree
from sandboxd.spawner.guard import Guard
from tests.unit.spawner.conftest import SANDBOX_ID, Children


def test_what_is_frozen_dies_with_whoever_froze_it(v1_tree: V1Tree, children: Children) -> None:
    """The parent of guard and program is killed, and what the program holds open is let go of."""
    made = v1_tree.create(SANDBOX_ID)
    held, hold = os.pipe()
    ready, tell = os.pipe()

    def freeze() -> None:
        if (pid := os.fork()) == 0:
            while True:
                signal.pause()
        made.attach(pid)
        Guard(v1_tree)
        while not made.freeze():
            pass
        os.close(hold)
        os.write(tell, b"!")

    freezer = children.start(freeze)
    os.close(hold)
    assert os.read(ready, 1) == b"!"
    os.set_blocking(held, False)
    with suppress(BlockingIOError):
        raise AssertionError(f"the control: it lives, {os.read(held, 1)!r}")
    os.set_blocking(held, True)
    os.kill(freezer, signal.SIGKILL)
    children.reap(freezer)
    assert os.read(held, 1) == b"", "its last holder is dead"
    made.kill()
    made.remove()
    for fd in (held, ready, tell):
        os.close(fd)


def test_dismissed_guard_is_gone(v1_tree: V1Tree) -> None:
    before = len(os.listdir("/proc/self/fd"))
    guard = Guard(v1_tree)
    guard.dismiss()
    assert len(os.listdir("/proc/self/fd")) == before
