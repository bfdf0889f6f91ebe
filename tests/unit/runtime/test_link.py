import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from sandboxd.runtime.link import Link
from sandboxd.spawner import wire

READY = wire.Ready("serving")


class End:
    """A link with what it was told, and the socket of its peer."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.messages: asyncio.Queue[tuple[wire.Message, list[int]]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.losses = 0
        self.refuses = False
        self.link = Link(ours, self._on_message, self._on_lost)

    def _on_message(self, message: wire.Message, fds: list[int]) -> None:
        if self.refuses:
            wire.close_all(fds)
            raise wire.ProtocolError("not now")
        self.messages.put_nowait((message, fds))

    def _on_lost(self) -> None:
        self.losses += 1
        self.lost.set()


@pytest.fixture
async def end() -> AsyncIterator[End]:
    made = End()
    yield made
    made.link.close()
    made.peer.close()


async def test_message_and_descriptors_arrive_at_the_peer_and_stay_the_callers(end: End) -> None:
    read, write = os.pipe()
    end.link.send(READY, (write,))
    received = wire.receive(end.peer)
    assert received is not None
    message, (copy,) = received
    assert message == READY
    os.write(write, b"x")
    os.write(copy, b"y")
    assert os.read(read, 2) == b"xy"
    wire.close_all((read, write, copy))


async def test_message_of_the_peer_is_told_with_its_descriptors(end: End) -> None:
    wire.send(end.peer, READY, (0,))
    message, fds = await end.messages.get()
    assert (message, len(fds)) == (READY, 1)
    wire.close_all(fds)


async def test_what_the_socket_does_not_take_now_follows_in_order(end: End) -> None:
    sent = [wire.Ready(f"{number}" + "x" * 8000) for number in range(200)]
    read, write = os.pipe()
    for message in sent:
        end.link.send(message, (write,))
    os.close(write)  # those that wait hold copies
    end.peer.setblocking(False)
    got: list[wire.Message] = []
    while len(got) < len(sent):
        try:
            received = wire.receive(end.peer)
        except BlockingIOError:
            await asyncio.sleep(0)
            continue
        assert received is not None
        got.append(received[0])
        wire.close_all(received[1])
    assert got == sent
    assert os.read(read, 1) == b""  # and no copy is left
    os.close(read)


async def test_peer_that_goes_away_is_told_once(end: End) -> None:
    end.peer.close()
    await end.lost.wait()
    end.link.send(READY)
    end.link.close()
    assert end.losses == 1


@pytest.mark.parametrize("packet", [b"", b"{", b'{"type": "Ready", "status": 1}', b"\xff" * 64])
async def test_peer_that_breaks_the_protocol_is_lost(end: End, packet: bytes) -> None:
    end.peer.send(packet)
    await end.lost.wait()
    assert end.messages.empty()


async def test_message_that_its_reader_refuses_ends_the_link(end: End) -> None:
    end.refuses = True
    wire.send(end.peer, READY)
    await end.lost.wait()


async def test_closing_tells_nobody_and_drops_what_waits(end: End) -> None:
    read, write = os.pipe()
    for _ in range(200):
        end.link.send(wire.Ready("x" * 8000), (write,))
    os.close(write)
    end.link.close()
    end.link.close()
    end.peer.close()  # with what is in flight
    assert os.read(read, 1) == b""
    os.close(read)
    assert end.losses == 0
