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
