"""What waits for room in a real socket, and what the kernel refuses to carry."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from sandboxd.spawner import wire
from sandboxd.spawner.outbox import Outbox

FILLING = wire.Ready("x" * 10_000)
KILL = wire.Kill("a" * 32)


class Rig:
    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.theirs.settimeout(10)
        self.ours = ours
        self.undelivered: list[tuple[wire.Message, int | None]] = []
        self.box = Outbox(ours, lambda message, error: self.undelivered.append((message, error.errno)))

    def fill(self) -> int:
        """Until something waits; how many were posted."""
        count = 0
        while not self.box:
            self.box.post(FILLING)
            count += 1
        return count

    def receive(self) -> tuple[wire.Message, list[int]]:
        received = wire.receive(self.theirs)
        assert received is not None
        return received

    def close(self) -> None:
        self.box.clear()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def _open(name: str) -> int:
    return os.memfd_create(name)


def _held() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_message_goes_at_once_while_there_is_room(rig: Rig) -> None:
    fd = _open("its")
    rig.box.post(KILL, (fd,))
    message, (received,) = rig.receive()
    assert message == KILL and os.path.samestat(os.fstat(received), os.fstat(fd))
    assert not rig.box
    wire.close_all([fd, received])


def test_what_waits_goes_later_and_in_order(rig: Rig) -> None:
    filled = rig.fill()
    rig.box.post(KILL)
    rig.box.flush()
    assert len(rig.box) == 2, "the control: there is still no room"
    for _ in range(filled - 1):
        assert rig.receive() == (FILLING, [])
    rig.box.flush()
    assert [rig.receive()[0], rig.receive()[0]] == [FILLING, KILL]
    assert not rig.box


def test_descriptor_that_is_closed_meanwhile_is_the_one_that_arrives_and_not_its_successor(rig: Rig) -> None:
    filled = rig.fill()
    fd = _open("its")
    inode = os.fstat(fd).st_ino
    rig.box.post(KILL, (fd,))
    os.close(fd)
    other = _open("another's")
    assert other == fd, "the control: its number is another's now"
    for _ in range(filled - 1):
        rig.receive()
    rig.box.flush()
    rig.receive()
    message, (received,) = rig.receive()
    assert message == KILL
    assert os.fstat(received).st_ino == inode
    wire.close_all([other, received])


def test_copies_are_closed_when_sent_and_when_nobody_wants_them(rig: Rig) -> None:
    filled = rig.fill()
    fd = _open("its")
    before = _held()
    rig.box.post(KILL, (fd, fd))
    assert _held() == before + 2
    for _ in range(filled):
        rig.receive()
        rig.box.flush()
    wire.close_all(rig.receive()[1])
    assert _held() == before
    rig.fill()
    rig.box.post(KILL, (fd, fd))
    rig.box.clear()
    assert (_held(), len(rig.box)) == (before, 0)
    os.close(fd)


def test_message_that_the_kernel_refuses_is_told_and_those_behind_it_go(rig: Rig) -> None:
    closed = _open("closed")
    os.close(closed)
    rig.box.post(KILL, (closed,))
    rig.box.post(FILLING)
    assert rig.undelivered == [(KILL, errno.EBADF)]
    assert rig.receive() == (FILLING, [])


def test_message_whose_descriptors_cannot_be_copied_is_told(rig: Rig) -> None:
    rig.fill()
    before = _held()
    fd = _open("its")
    rig.box.post(KILL, (fd, 1_000_000))
    assert rig.undelivered == [(KILL, errno.EBADF)]
    os.close(fd)
    assert _held() == before


def test_dead_peer_is_told_nothing_more(rig: Rig) -> None:
    rig.fill()
    fd = _open("its")
    rig.box.post(KILL, (fd,))
    before = _held()
    rig.theirs.close()
    rig.box.flush()
    assert not rig.box
    rig.box.post(KILL)
    assert (rig.undelivered, len(rig.box)) == ([], 0)
    assert _held() == before - 2, "its end, and the copy"
    os.close(fd)
