"""Against real sockets: who is let in, who is shown out when all places are taken, and what is left of a listener."""

import asyncio
import contextlib
import dataclasses
import logging
import resource
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from sandboxd.errors import ConfigInvalid
from sandboxd.host.listener import Bounds, Listener, Place, Purpose
from tests.opa import free_port

LONG = 300.0  # so that nothing ends by itself
SHORT = 0.1
BOUNDS = Bounds(
    clients=2,
    client_seconds=LONG,
    silent_seconds=LONG,
    pause_seconds=0.0,
    retry_seconds=7.0,
    line_bytes=4096,
    headers=16,
    backlog=16,
    handshake_seconds=LONG,
)
IMPATIENT = dataclasses.replace(BOUNDS, silent_seconds=SHORT)
PATIENT = dataclasses.replace(BOUNDS, silent_seconds=1.0)  # so that who asks at once has asked by then
PURPOSE = Purpose(
    key="some.listen",
    not_listening="nobody can be heard",
    not_accepted="cannot accept",
    too_slow="too slow",
    log=logging.getLogger(__name__),
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hello(_request: web.BaseRequest) -> web.StreamResponse:
    response = web.Response(text="hello")
    response.force_close()
    return response


@contextlib.asynccontextmanager
async def listening(
    bounds: Bounds = BOUNDS,
    place: Place | None = None,
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = hello,
    tls: ssl.SSLContext | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Listener]:
    listener = Listener(place or ("127.0.0.1", free_port()), answer, bounds, PURPOSE, tls=tls, sleep=sleep)
    try:
        yield listener
    finally:
        await listener.close()


async def connect(listener: Listener, said: bytes = b"") -> Connection:
    if isinstance(listener.place, Path):
        reader, writer = await asyncio.open_unix_connection(listener.place)
    else:
        reader, writer = await asyncio.open_connection(*listener.place)
    writer.write(said)
    return reader, writer


async def heard(connection: Connection) -> bytes:
    """All that comes until the listener closes."""
    received = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while data := await connection[0].read(65536):
                received += data
    connection[1].close()
    return received


async def has_clients(listener: Listener, number: int) -> None:
    async with asyncio.timeout(60):
        while listener.clients != number:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_who_asks_nothing_makes_room_when_all_places_are_taken(said: bytes) -> None:
    async with listening(IMPATIENT) as listener:
        silent = [await connect(listener, said) for _ in range(3 * IMPATIENT.clients)]
        assert b"hello" in await heard(await connect(listener, GET))
        assert [await heard(one) for one in silent[: IMPATIENT.clients]] == [b"", b""]
        for _, writer in silent:
            writer.close()


async def test_who_asks_nothing_keeps_his_place_while_there_is_another() -> None:
    async with listening(dataclasses.replace(IMPATIENT, clients=3)) as listener:
        silent = await connect(listener)
        await has_clients(listener, 1)
        await asyncio.sleep(3 * SHORT)
        assert b"hello" in await heard(await connect(listener, GET))
        silent[1].write(GET)
        assert b"hello" in await heard(silent)


async def test_who_has_asked_keeps_his_place_and_the_silent_one_after_him_goes() -> None:
    may_answer = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/wait":
            await may_answer.wait()
        return await hello(request)

    async with listening(PATIENT, answer=answer) as listener:
        asked = await connect(listener, b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        await has_clients(listener, 1)
        silent = await connect(listener)
        assert b"hello" in await heard(await connect(listener, GET))
        assert await heard(silent) == b""
        assert not asked[0].at_eof()
        may_answer.set()
        assert b"hello" in await heard(asked)


async def test_when_all_have_asked_the_next_waits_until_one_leaves() -> None:
    may_answer = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await may_answer.wait()
        return await hello(request)

    async with listening(PATIENT, answer=answer) as listener:
        everybody = [await connect(listener, GET) for _ in range(PATIENT.clients + 1)]
        await has_clients(listener, PATIENT.clients)
        await asyncio.sleep(1.5 * PATIENT.silent_seconds)
        assert listener.clients == PATIENT.clients
        may_answer.set()
        for one in everybody:
            assert b"hello" in await heard(one)


async def test_so_many_at_a_time_and_the_next_waits_until_one_leaves() -> None:
    async with listening() as listener:
        silent = [await connect(listener) for _ in range(BOUNDS.clients)]
        await has_clients(listener, BOUNDS.clients)
        late = asyncio.create_task(heard(await connect(listener, GET)))
        await asyncio.sleep(2 * SHORT)
        assert not late.done() and listener.clients == BOUNDS.clients
        silent[1][1].close()
        assert b"hello" in await late
        silent[0][1].close()
        await has_clients(listener, 0)


async def test_nobody_stays_longer_than_his_time() -> None:
    async with listening(dataclasses.replace(BOUNDS, client_seconds=SHORT)) as listener:
        assert await heard(await connect(listener, b"GET /")) == b""
        await has_clients(listener, 0)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_over_tls_who_does_not_shake_hands_makes_room(authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with listening(IMPATIENT, tls=server(authority)) as listener:
        silent = [await connect(listener) for _ in range(IMPATIENT.clients)]
        assert isinstance(listener.place, tuple)
        async with asyncio.timeout(60):
            late = await asyncio.open_connection(*listener.place, ssl=trusting, server_hostname="localhost")
        late[1].write(GET)
        assert b"hello" in await heard(late)
        assert await heard(silent[0]) == b""
        silent[1][1].close()


async def test_over_tls_who_does_not_shake_hands_in_time_is_shown_out(authority: trustme.CA) -> None:
    async with listening(dataclasses.replace(BOUNDS, handshake_seconds=SHORT), tls=server(authority)) as listener:
        assert await heard(await connect(listener)) == b""
        await has_clients(listener, 0)


async def test_between_two_there_is_a_pause() -> None:
    pauses: list[float] = []
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await over.wait()

    async with listening(dataclasses.replace(BOUNDS, pause_seconds=3.0), sleep=sleep) as listener:
        assert b"hello" in await heard(await connect(listener, GET))
        late = asyncio.create_task(heard(await connect(listener, GET)))
        await asyncio.sleep(2 * SHORT)
        assert not late.done() and pauses == [3.0]
        over.set()
        assert b"hello" in await late


async def test_out_of_descriptors_it_says_so_waits_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    async with listening(sleep=sleep) as listener:
        with socket.socket() as client:
            client.setblocking(False)
            assert isinstance(listener.place, tuple)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            try:
                client.connect_ex(listener.place)
                await has_clients(listener, 1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert pauses[0] == BOUNDS.retry_seconds
        assert [record.message for record in caplog.records] == ["cannot accept"]


@pytest.mark.parametrize(
    "said",
    [
        b"GET /" + b"a" * BOUNDS.line_bytes + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * (BOUNDS.line_bytes + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(BOUNDS.headers + 1)) + b"\r\n",
    ],
)
async def test_larger_than_allowed_is_refused_without_a_word_in_the_log(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening() as listener:
        assert b" 400 " in await heard(await connect(listener, said))
    assert caplog.records == []


async def test_socket_is_its_users_alone_in_place_of_a_stale_one_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "some.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with listening(place=path) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"hello" in await heard(await connect(listener, GET))
        with pytest.raises(ConfigInvalid, match=r"another daemon serves .*some\.listen"):
            Listener(path, hello, BOUNDS, PURPOSE)
    assert not path.exists()


async def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "some.sock"
    path.write_text("precious")
    with pytest.raises(ConfigInvalid, match="is not a socket"):
        Listener(path, hello, BOUNDS, PURPOSE)
    assert path.read_text() == "precious"


async def test_place_that_is_taken_is_told_with_the_key_that_names_it() -> None:
    async with listening() as listener:
        with pytest.raises(ConfigInvalid, match=r"nobody can be heard at '127.*in use; set some\.listen to a free"):
            Listener(listener.place, hello, BOUNDS, PURPOSE)


async def test_nobody_is_left_after_the_end() -> None:
    async with listening() as listener:
        silent = await connect(listener)
        await has_clients(listener, 1)
        before = asyncio.all_tasks()
    assert await heard(silent) == b""
    with pytest.raises(ConnectionRefusedError):
        await connect(listener)
    assert asyncio.all_tasks() < before
