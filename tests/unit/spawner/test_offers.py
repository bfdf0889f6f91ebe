"""What the daemon is offered, and what it has let go of; blanks here are only processes that wait."""

import errno
import os
import selectors
import signal
import socket
from collections.abc import Iterator

import pytest

from sandboxd.spawner.blank import Blank
from sandboxd.spawner.cgroup_base import NoCgroup
from sandboxd.spawner.ids import IdBlock
from sandboxd.spawner.offers import Offers, new_line
from sandboxd.spawner.wire import Message, Offered, Withdrawn
from tests.unit.spawner.conftest import Children
from tests.unit.spawner.spawner_rig import PREPARED

BLOCK = IdBlock(1, 1016, 1016, single=False)


class Rig:
    def __init__(self, children: Children) -> None:
        self._children = children
        self.selector = selectors.DefaultSelector()
        self.told: list[tuple[Message, tuple[int, ...]]] = []
        self.died: list[Blank] = []
        self.blanks: list[Blank] = []
        self.offers = Offers(lambda message, fds: self.told.append((message, fds)), self.selector, self.died.append)

    def blank(self, *, fitted: bool = True) -> Blank:
        pid = self._children.start()
        ours, theirs = socket.socketpair()
        theirs.close()
        blank = Blank(pid, os.pidfd_open(pid), ours, BLOCK, NoCgroup(), PREPARED, fitted=fitted)
        self.blanks.append(blank)
        return blank

    def serve(self) -> None:
        for key, _ in self.selector.select(0):
            key.data()

    def close(self) -> None:
        self.offers.forget()
        self.selector.close()
        for blank in self.blanks:
            blank.close()


@pytest.fixture
def rig(children: Children) -> Iterator[Rig]:
    made = Rig(children)
    yield made
    made.close()


def test_offer_is_told_with_its_line_and_claimed_by_its_number(rig: Rig) -> None:
    blank = rig.blank()
    rig.offers.make(blank, ["a", "b"])
    ((message, fds),) = rig.told
    assert isinstance(message, Offered)
    assert (message.offer, message.templates, message.host_uid) == (1, ("a", "b"), BLOCK.payload_uid)
    assert message.memory_bytes == PREPARED.template.ceilings.memory_bytes
    assert rig.offers.find(1) is blank
    line = rig.offers.claim(1)
    assert fds == (blank.pidfd, line.ours.fileno())
    line.theirs.send(b"x")
    assert line.ours.recv(1) == b"x"
    line.close()
    assert rig.offers.find(1) is None
    with pytest.raises(KeyError):
        rig.offers.claim(1)


def test_blank_that_does_not_hold_its_limits_says_so(rig: Rig) -> None:
    rig.offers.make(rig.blank(fitted=False), ["a"])
    message, _ = rig.told[0]
    assert isinstance(message, Offered) and message.memory_bytes == 0


def test_withdrawn_offer_is_told_once_and_can_be_claimed_until_it_is_returned(rig: Rig) -> None:
    blank = rig.blank()
    rig.offers.make(blank, ["a"])
    assert rig.offers.withdraw(blank)
    assert not rig.offers.withdraw(blank)
    assert [message for message, _ in rig.told[1:]] == [Withdrawn(1)]
    assert (rig.offers.leaving, rig.offers.find(1)) == (1, blank)
    rig.offers.claim(1).close()
    assert (rig.offers.leaving, rig.offers.find(1)) == (0, None)


def test_blank_that_nobody_was_told_of_can_go_at_once(rig: Rig) -> None:
    assert not rig.offers.withdraw(rig.blank())
    assert rig.told == []


def test_death_is_told_while_it_stands_on_offer_and_not_afterwards(rig: Rig) -> None:
    standing, withdrawn, claimed = (rig.blank() for _ in range(3))
    for blank in (standing, withdrawn, claimed):
        rig.offers.make(blank, ["a"])
    rig.offers.withdraw(withdrawn)
    rig.offers.claim(3).close()
    for blank in (standing, withdrawn, claimed):
        os.kill(blank.pid, signal.SIGKILL)
        os.waitid(os.P_PID, blank.pid, os.WEXITED | os.WNOWAIT)
    rig.serve()
    assert rig.died == [standing]


def test_what_was_withdrawn_is_left_over_when_the_daemon_is_gone(rig: Rig) -> None:
    standing, withdrawn = rig.blank(), rig.blank()
    before = len(os.listdir("/proc/self/fd"))
    for blank in (standing, withdrawn):
        rig.offers.make(blank, ["a"])
    rig.offers.withdraw(withdrawn)
    assert rig.offers.forget() == (withdrawn,)
    assert (rig.offers.find(1), rig.offers.find(2), rig.offers.leaving) == (None, None, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    rig.offers.make(standing, ["a"])
    assert rig.offers.find(3) is standing, "no number comes twice: a message of the last daemon's may still be there"


def test_blank_that_cannot_be_watched_is_not_offered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    blank = rig.blank()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(rig.selector, "register", full)
    with pytest.raises(OSError, match="no more watches"):
        rig.offers.make(blank, ["a"])
    assert (rig.told, rig.offers.withdraw(blank)) == ([], False)
    assert len(os.listdir("/proc/self/fd")) == before


def test_line_joins_two_ends() -> None:
    line = new_line()
    line.ours.send(b"x")
    assert line.theirs.recv(1) == b"x"
    line.close()
