"""How the spawner lets go of a sandbox whose cgroup does not empty, and of one that does."""

import os
import signal
import socket

from sandboxd.spawner.blank import Blank
from sandboxd.spawner.cgroup_base import NoCgroup
from sandboxd.spawner.ids import IdBlock
from sandboxd.spawner.living import Living, remove
from tests.unit.spawner.conftest import Children
from tests.unit.spawner.spawner_rig import PREPARED


class Stubborn(NoCgroup):
    """A cgroup that is busy until killed so many times."""

    def __init__(self, kills: int) -> None:
        self.kills = kills

    def remove(self) -> None:
        if self.kills:
            raise OSError(16, "busy")

    def kill(self) -> None:
        self.kills -= 1


def test_busy_cgroup_is_killed_and_one_that_stays_busy_is_told() -> None:
    assert remove(NoCgroup())
    assert remove(Stubborn(1))
    assert not remove(Stubborn(2))


def test_finished_sandbox_tells_its_status_and_holds_nothing(children: Children) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pid = children.start()
    children.pids.remove(pid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    counter = os.open(os.devnull, os.O_RDONLY)
    block = IdBlock(1, 1016, 1016, single=False)
    blank = Blank(pid, os.pidfd_open(pid), ours, block, NoCgroup(), PREPARED, (("cpu.stat", counter),))
    living = Living("a" * 32, blank, control)
    names, fds = living.descriptors()
    assert names == ("pidfd", "init", "cpu.stat")
    assert fds == (blank.pidfd, control.fileno(), counter)
    living.kill()
    assert living.finish() == (-signal.SIGKILL, ())
    assert len(os.listdir("/proc/self/fd")) == before


class Freezable(NoCgroup):
    """Tells what was done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def freeze(self) -> bool:
        self.calls.append("freeze")
        return True

    def thaw(self) -> None:
        self.calls.append("thaw")

    def let_die(self) -> None:
        self.calls.append("let_die")


def test_only_a_frozen_sandbox_must_be_let_die(children: Children) -> None:
    cgroup = Freezable()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = children.start()
    children.pids.remove(pid)
    block = IdBlock(1, 1016, 1016, single=False)
    living = Living("a" * 32, Blank(pid, os.pidfd_open(pid), ours, block, cgroup, PREPARED), theirs)
    assert living.freeze()
    living.thaw()
    living.kill()
    assert cgroup.calls == ["freeze", "thaw"]
    assert living.freeze()
    living.kill()
    assert cgroup.calls[2:] == ["freeze", "let_die"]
    living.finish()
