"""The daemon's end of a connection: in order, without blocking, and told once when the peer is gone."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from sandboxd.runtime.link import Link
from sandboxd.spawner import wire

KILL = wire.Kill("a" * 32)


def _held() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@dataclass
class Connected:
    """`lost` counts; `got` holds what came."""

    peer: socket.socket
    link: Link = field(init=False)
    got: list[tuple[wire.Message, list[int]]] = field(default_factory=list)
    lost: int = 0
    refuse: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_message(self, message: wire.Message, fds: list[int]) -> None:
        self.changed.set()
        if self.refuse:
            raise wire.ProtocolError("not that")
        self.got.append((message, fds))

    def on_lost(self) -> None:
        self.lost += 1
        self.changed.set()

    async def change(self) -> None:
        async with asyncio.timeout(30):
            await self.changed.wait()
        self.changed.clear()


@pytest_asyncio.fixture
async def end() -> AsyncIterator[Connected]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(30)
    connected = Connected(theirs)
    connected.link = Link(ours, connected.on_message, connected.on_lost)
    yield connected
    connected.link.close()
    theirs.close()


async def test_messages_come_in_order_with_their_descriptors(end: Connected) -> None:
    read, write = os.pipe()
    wire.send(end.peer, wire.Reload(1), (read,))
    wire.send(end.peer, wire.Reload(2))
    while len(end.got) < 2:
        await end.change()
    assert [message for message, _ in end.got] == [wire.Reload(1), wire.Reload(2)]
    (fd,) = end.got[0][1]
    assert os.path.sameopenfile(fd, read)
    wire.close_all([fd, read, write])


async def test_flood_is_delivered_whole_and_in_order_with_its_descriptors(end: Connected) -> None:
    """Far more than the socket holds; the descriptors may be closed at once."""
    count = 2000
    for number in range(count):
        fd = os.memfd_create(str(number))
        os.write(fd, str(number).encode())
        end.link.send(wire.Reload(number), (fd,))
        os.close(fd)
    for number in range(count):
        received = await asyncio.to_thread(wire.receive, end.peer)
        assert received is not None
        message, (fd,) = received
        assert message == wire.Reload(number)
        assert os.pread(fd, 10, 0) == str(number).encode()
        os.close(fd)


async def test_closed_peer_is_told_once(end: Connected) -> None:
    end.peer.close()
    await end.change()
    end.link.send(KILL)
    end.link.close()
    assert end.lost == 1


@pytest.mark.parametrize("packet", [b"garbage", b'{"type":"Kill"}', b'{"type": "@memfd"', b"\xff\xfe{"])
async def test_peer_that_breaks_the_protocol_is_left(packet: bytes, end: Connected) -> None:
    end.peer.send(packet)
    await end.change()
    assert (end.got, end.lost) == ([], 1)
    assert end.peer.recv(1) == b""


async def test_message_that_its_receiver_refuses_ends_the_connection(end: Connected) -> None:
    end.refuse = True
    wire.send(end.peer, KILL)
    while not end.lost:
        await end.change()
    assert end.lost == 1
    assert end.peer.recv(1) == b""


async def test_close_tells_nobody_and_releases_what_waits(end: Connected) -> None:
    before = _held()
    with Path(os.devnull).open("rb") as file:
        for _ in range(2000):
            end.link.send(KILL, (file.fileno(),))
    assert _held() > before
    end.link.close()
    end.link.close()
    assert _held() == before - 1
    assert end.lost == 0


async def test_sending_to_a_peer_that_left_is_silent(end: Connected) -> None:
    end.peer.close()
    end.link.send(KILL)
    await end.change()
    assert end.lost == 1


async def test_message_that_cannot_be_sent_is_raised_not_dropped(end: Connected) -> None:
    with pytest.raises(wire.ProtocolError):
        end.link.send(wire.Ready("x" * wire.MAX_MESSAGE))
    with pytest.raises(OSError, match="Bad file descriptor"):
        end.link.send(KILL, (999_999,))
    end.link.send(KILL)
    assert wire.receive(end.peer) == (KILL, [])


async def test_message_that_turns_out_too_large_in_the_queue_ends_the_connection(end: Connected) -> None:
    """Not an endless loop of trying."""
    for number in range(2000):
        end.link.send(wire.Reload(number))
    end.link.send(wire.Ready("x" * wire.MAX_MESSAGE))
    for _ in range(2000):
        await asyncio.to_thread(wire.receive, end.peer)
    await end.change()
    assert end.lost == 1
