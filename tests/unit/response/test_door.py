"""Against real sockets: who is let in, for how long, and that nobody costs more than his place."""

import asyncio
import contextlib
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from sandboxd.errors import ConfigInvalid
from sandboxd.response.door import MOST_CLIENTS, Door, server_context
from sandboxd.settings.response import ResponseSettings
from tests.opa import free_port

LONG = 300.0  # so that nothing ends by itself
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


async def greet(request: web.BaseRequest) -> web.StreamResponse:
    response = web.Response(text="hello")
    response.force_close()
    return response


@contextlib.asynccontextmanager
async def opened(
    place: Path | tuple[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
    client_seconds: float = LONG,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Door]:
    door = Door(place or ("127.0.0.1", free_port()), tls, web.Server(greet), client_seconds=client_seconds, sleep=sleep)
    try:
        yield door
    finally:
        await door.close()


async def answer(place: tuple[str, int], tls: ssl.SSLContext | None = None) -> bytes:
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*place, ssl=tls, server_hostname="localhost" if tls else None)
        writer.write(POST)
        received = await reader.read()
        writer.close()
        return received


async def has_clients(door: Door, number: int) -> None:
    async with asyncio.timeout(60):
        while door.clients != number:
            await asyncio.sleep(0.01)


async def test_client_is_answered_and_gone() -> None:
    async with opened() as door:
        assert b"hello" in await answer(door.place)  # type: ignore[arg-type]
        await has_clients(door, 0)


async def test_socket_is_its_users_alone_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    async with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(POST)
        assert b"hello" in await reader.read()
        writer.close()
    assert not path.exists()


async def test_slow_client_is_shown_out() -> None:
    async with opened(client_seconds=0.05) as door:
        _, writer = await asyncio.open_connection(*door.place)  # type: ignore[misc]
        writer.write(POST[:20])
        await has_clients(door, 1)
        await has_clients(door, 0)
        writer.close()


async def test_so_many_at_a_time_and_the_rest_waits() -> None:
    async with opened() as door, contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_CLIENTS + 3):
            _, writer = await asyncio.open_connection(*door.place)  # type: ignore[misc]
            stack.callback(writer.close)
        await has_clients(door, MOST_CLIENTS)


async def test_place_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigInvalid, match=r"set response\.listen to a free place"):
            Door(("127.0.0.1", taken.getsockname()[1]), None, web.Server(greet))


class Authority:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(directory / "ca.pem")
        issued = self.ca.issue_cert("localhost")
        issued.private_key_pem.write_to_path(directory / "server.key")
        issued.cert_chain_pems[0].write_to_path(directory / "server.pem")

    def settings(self, *, client_ca: bool = True) -> ResponseSettings:
        path = self.directory
        return ResponseSettings(
            listen="0.0.0.0:1" if client_ca else "127.0.0.1:1",
            certificate=str(path / "server.pem"),
            key=str(path / "server.key"),
            client_ca=str(path / "ca.pem") if client_ca else None,
            token_file=None if client_ca else "/t",
            rules={"R": "freeze"},
        )

    def client(self, of: trustme.CA | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        if of is not None:
            of.issue_cert("sidekick@clients", common_name="sidekick").configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_certificate_of_the_clients_authority_is_let_in_and_no_other(authority: Authority) -> None:
    async with opened(tls=server_context(authority.settings())) as door:
        place = door.place
        assert isinstance(place, tuple)
        assert b"hello" in await answer(place, authority.client(authority.ca))
        for stranger in (None, trustme.CA()):
            with pytest.raises((OSError, AssertionError)):
                assert await answer(place, authority.client(stranger)), "it closed without a word"
        with pytest.raises((OSError, AssertionError)):
            assert b"hello" in await answer(place), "nor is anybody without TLS"
        await has_clients(door, 0)


async def test_whoever_does_not_shake_hands_is_shown_out(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxd.response.door.HANDSHAKE_SECONDS", 0.05)
    async with opened(tls=server_context(authority.settings())) as door:
        _, writer = await asyncio.open_connection(*door.place)  # type: ignore[misc]
        await has_clients(door, 1)
        await has_clients(door, 0)
        writer.close()


def test_without_a_certificate_there_is_no_tls() -> None:
    settings = ResponseSettings(listen="127.0.0.1:1", token_file="/t", rules={"R": "kill"})
    assert server_context(settings) is None


def test_certificates_that_cannot_be_used_are_told_by_their_keys(authority: Authority) -> None:
    (authority.directory / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigInvalid, match=r"response\.client_ca"):
        server_context(authority.settings())
    (authority.directory / "server.key").unlink()
    with pytest.raises(ConfigInvalid, match=r"response\.certificate"):
        server_context(authority.settings(client_ca=False))
