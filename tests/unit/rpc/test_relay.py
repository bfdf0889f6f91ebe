"""Bytes come through whole, a slow end slows the other, and who may not come in does not."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.rpc.peer import Peers
from sandboxd.rpc.relay import Relay
from tests.skips import need_root

MEGABYTE = 1 << 20
ALICE, BOB = 64_421, 64_422


@dataclass
class Line:
    """A relay with a plain socket behind it in place of a gRPC server."""

    path: Path
    relay: Relay
    peers: Peers
    inner: socket.socket

    async def connect(self) -> tuple[socket.socket, socket.socket]:
        """The caller's end, and the end that the server would have."""
        loop = asyncio.get_running_loop()
        caller = self.dial()
        served, _address = await asyncio.wait_for(loop.sock_accept(self.inner), 5)
        return caller, served

    def dial(self) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(str(self.path))
        caller.setblocking(False)
        return caller


def bound(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.bind(str(path))
    listening.listen(64)
    return listening


@pytest.fixture
def allowed() -> frozenset[int]:
    return frozenset({os.geteuid()})


@pytest.fixture
async def line(tmp_path: Path, allowed: frozenset[int]) -> AsyncIterator[Line]:
    peers = Peers(allowed)
    inner = bound(tmp_path / "inner")
    relay = Relay(bound(tmp_path / "outer"), tmp_path / "inner", peers, max_connections=4)
    yield Line(tmp_path / "outer", relay, peers, inner)
    relay.close()
    inner.close()


async def ended(connection: socket.socket) -> bool:
    """Whether the other end closed it, within reason."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1), 5) == b""
    except ConnectionResetError:
        return True


async def test_bytes_come_through_whole_in_both_directions(line: Line) -> None:
    loop = asyncio.get_running_loop()
    caller, served = await line.connect()
    data = os.urandom(8 * MEGABYTE)

    async def receive(connection: socket.socket) -> str:
        digest = hashlib.sha256()
        left = len(data)
        while left:
            piece = await loop.sock_recv(connection, 1 << 16)
            assert piece
            digest.update(piece)
            left -= len(piece)
        return digest.hexdigest()

    _sent, _sent_back, there, back = await asyncio.wait_for(
        asyncio.gather(
            loop.sock_sendall(caller, data), loop.sock_sendall(served, data), receive(served), receive(caller)
        ),
        30,
    )
    assert there == back == hashlib.sha256(data).hexdigest()


async def test_reader_that_stops_stops_the_writer(line: Line) -> None:
    _caller, served = await line.connect()
    taken = 0
    for _ in range(200):
        try:
            taken += served.send(bytes(65536))
        except BlockingIOError:
            await asyncio.sleep(0.005)
    assert 0 < taken < 4 * MEGABYTE


async def test_peer_is_known_by_the_name_that_the_server_sees(line: Line) -> None:
    _caller, served = await line.connect()
    name = served.getpeername()
    peer = line.peers.of(f"unix-abstract:{name[1:].decode()}")
    assert peer is not None
    assert (peer.uid, peer.pid, peer.allowed) == (os.geteuid(), os.getpid(), True)


async def test_end_of_either_side_ends_the_other_and_is_forgotten(line: Line) -> None:
    for first in (0, 1):
        ends = await line.connect()
        name = f"unix-abstract:{ends[1].getpeername()[1:].decode()}"
        ends[first].close()
        assert await ended(ends[1 - first])
        assert line.peers.of(name) is None


async def test_last_bytes_before_the_end_arrive(line: Line) -> None:
    caller, served = await line.connect()
    served.send(b"goodbye")
    served.close()
    assert await asyncio.get_running_loop().sock_recv(caller, 100) == b"goodbye"


async def test_connections_beyond_the_cap_are_closed_and_the_others_live(line: Line) -> None:
    living = [await line.connect() for _ in range(4)]
    for caller, served in living:
        await speak(caller, served)
    assert await ended(line.dial())
    assert line.relay.dropped == 1
    living[0][0].close()
    assert await ended(living[0][1])
    await line.connect()


async def test_silent_connection_makes_room_at_the_cap_and_one_that_spoke_does_not(line: Line) -> None:
    living = [await line.connect() for _ in range(4)]
    await speak(*living[0])
    caller, served = await line.connect()
    assert await ended(living[1][0])
    await speak(caller, served)
    await speak(*living[0])


@pytest.fixture
async def crowded() -> AsyncIterator[Line]:
    """For root and two other uids, with twelve places: two of them are each one's part. Sockets without a path."""
    need_root()
    name = f"\0sandboxd-test-{os.getpid()}"
    peers = Peers(frozenset({0, ALICE, BOB}))
    inner = bound(Path(name + "-inner"))
    relay = Relay(bound(Path(name)), Path(name + "-inner"), peers, max_connections=12)
    yield Line(Path(name), relay, peers, inner)
    relay.close()
    inner.close()


@contextmanager
def being(uid: int) -> Iterator[None]:
    """Whom the kernel names as the one that connects."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_uid_that_speaks_on_every_connection_leaves_the_others_their_part(crowded: Line) -> None:
    kept = []
    with being(ALICE):
        for _ in range(8):
            kept.append(await crowded.connect())
            await speak(*kept[-1])
        assert await ended(crowded.dial())
    for uid in (0, BOB):
        with being(uid):
            for _ in range(2):
                kept.append(await crowded.connect())
                await speak(*kept[-1])
    with being(ALICE):
        assert await ended(crowded.dial())
    for caller, served in kept:
        await speak(caller, served)


async def test_silent_connection_of_another_makes_room_only_beyond_its_part(crowded: Line) -> None:
    with being(BOB):
        spoken = [await crowded.connect() for _ in range(8)]
        for ends in spoken:
            await speak(*ends)
    with being(ALICE):
        silent = [await crowded.connect() for _ in range(2)]
    with being(BOB):
        assert await ended(crowded.dial())
    with being(0):
        for _ in range(2):
            await speak(*await crowded.connect())
    for ends in silent:
        await speak(*ends)


async def speak(caller: socket.socket, served: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(caller, b"x")
    assert await asyncio.wait_for(loop.sock_recv(served, 1), 5) == b"x"


@pytest.mark.parametrize("allowed", [frozenset({os.geteuid() + 1})])
async def test_strangers_are_few_and_marked_and_fill_no_log(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    _caller, served = await line.connect()
    peer = line.peers.of(f"unix-abstract:{served.getpeername()[1:].decode()}")
    assert peer is not None
    assert not peer.allowed
    kept = [line.dial() for _ in range(20)]
    endings = await asyncio.gather(*(ended_soon(connection) for connection in kept))
    assert endings.count(False) == 7
    assert len(caplog.records) < 20, "not one for each of the 21"


async def ended_soon(connection: socket.socket) -> bool:
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1), 0.5) == b""
    except TimeoutError:
        return False


async def test_server_that_is_gone_closes_the_connection(line: Line, tmp_path: Path) -> None:
    (tmp_path / "inner").unlink()
    assert await ended(line.dial())
    assert not line.relay.connections


async def test_close_ends_everything(line: Line) -> None:
    caller, served = await line.connect()
    line.relay.close()
    assert await ended(caller)
    assert await ended(served)
    with pytest.raises(ConnectionRefusedError):
        line.dial()


async def test_closed_listener_lets_the_living_go_on(line: Line) -> None:
    caller, served = await line.connect()
    line.relay.close_listener()
    caller.send(b"x")
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(served, 1), 5) == b"x"
