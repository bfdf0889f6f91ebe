"""Against real sockets: what readers get, and that none of them costs the daemon more than its place."""

import asyncio
import contextlib
import resource
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import cast

import pytest

from sandboxd.errors import ConfigInvalid
from sandboxd.listening import Loopback
from sandboxd.metrics.endpoint import MAX_HEADERS, MAX_LINE_BYTES, MOST_READERS, PAUSE_SECONDS, RETRY_SECONDS, Endpoint
from sandboxd.metrics.exposition import Page
from tests.opa import free_port

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
LONG = 300.0  # so that nothing ends by itself


@contextlib.asynccontextmanager
async def serving(
    place: Loopback | Path | None = None,
    page: Callable[[str], Page] = lambda accept: Page(f"page for {accept!r}".encode(), "text/plain"),
    reader_seconds: float = LONG,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    reasons: Callable[[], Collection[str]] = tuple,
) -> AsyncIterator[Endpoint]:
    place = place or Loopback("127.0.0.1", free_port())
    endpoint = Endpoint(place, page, reasons, reader_seconds=reader_seconds, sleep=sleep)
    try:
        yield endpoint
    finally:
        await endpoint.close()


async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = endpoint.place
    if isinstance(place, Path):
        return await asyncio.open_unix_connection(place)
    return await asyncio.open_connection(place.host, place.port)


async def answer(endpoint: Endpoint, request: bytes) -> bytes:
    """All that comes back until the endpoint closes."""
    async with asyncio.timeout(60):
        reader, writer = await connect(endpoint)
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received += data
        writer.close()
        return received


async def has_readers(endpoint: Endpoint, number: int) -> None:
    async with asyncio.timeout(60):
        while endpoint.readers != number:
            await asyncio.sleep(0.01)


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


async def test_metrics_are_served_on_loopback_with_what_the_reader_accepts() -> None:
    async with serving() as endpoint:
        request = b"GET /metrics?x=y HTTP/1.1\r\nHost: x\r\nAccept: some/thing\r\n\r\n"
        received = await answer(endpoint, request)
    head, _, body = received.partition(b"\r\n\r\n")
    assert status(received) == 200 and b"Content-Type: text/plain" in head
    assert body == b"page for 'some/thing'"


async def test_metrics_are_served_on_a_socket_for_the_daemons_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))  # an earlier daemon left it
    async with serving(path) as endpoint:
        assert status(await answer(endpoint, GET)) == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_health_is_told_without_a_page() -> None:
    def page(_accept: str) -> Page:
        raise AssertionError("a probe costs no page")

    async with serving(page=page, reasons=lambda: ("draining",)) as endpoint:
        received = await answer(endpoint, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(received) == 200 and received.endswith(b"\r\n\r\nok\n")


async def test_readiness_is_told_with_its_reasons_as_they_are_now() -> None:
    reasons: list[str] = []
    probe = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(reasons=lambda: reasons) as endpoint:
        received = await answer(endpoint, probe)
        assert status(received) == 200 and received.endswith(b"\r\n\r\nready\n")
        reasons += ["draining", "journal_unavailable"]
        received = await answer(endpoint, probe)
        assert status(received) == 503 and received.endswith(b"\r\n\r\ndraining\njournal_unavailable\n")
        reasons.clear()
        assert status(await answer(endpoint, probe)) == 200


@pytest.mark.parametrize("request_line", [b"GET /", b"GET /metrics/", b"GET /health", b"GET //metrics", b"POST /x"])
async def test_nothing_else_is_there(request_line: bytes) -> None:
    async with serving() as endpoint:
        assert status(await answer(endpoint, request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")) == 404


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/readyz"])
@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
async def test_nothing_can_be_done_but_get(method: bytes, path: bytes) -> None:
    body = b"" if method in (b"HEAD", b"OPTIONS") else b"x" * 100_000
    head = method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n"
    async with serving() as endpoint:
        received = await answer(endpoint, head + body)
        assert status(received) == 405 and b"Allow: GET" in received
        assert status(await answer(endpoint, GET)) == 200


async def test_what_a_request_carries_is_not_read() -> None:
    async with serving() as endpoint:
        _, writer = await connect(endpoint)
        writer.write(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(256):
                writer.write(bytes(1024 * 1024))
                await writer.drain()
        await has_readers(endpoint, 0)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500,  # a TLS hello
        b"GET /metrics HTTP/9.9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n bad header\r\n\r\n",
        b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (MAX_LINE_BYTES + 1) + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
        + b"".join(b"X%d: y\r\n" % number for number in range(MAX_HEADERS + 1))
        + b"\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_the_next_one_is_served(
    nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as endpoint:
        received = await answer(endpoint, nonsense)
        assert status(received) == 400
        assert status(await answer(endpoint, GET)) == 200
    assert caplog.records == []  # else whoever may connect could fill the log


async def test_of_many_requests_on_one_connection_one_is_answered() -> None:
    async with serving() as endpoint:
        assert (await answer(endpoint, GET * 1000)).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
async def test_a_reader_that_does_not_finish_its_request_is_sent_away(said: bytes) -> None:
    async with serving(reader_seconds=0.2) as endpoint:
        assert await answer(endpoint, said) == b""
        await has_readers(endpoint, 0)
        assert status(await answer(endpoint, GET)) == 200


async def test_a_reader_that_does_not_read_is_sent_away() -> None:
    endless = Page(b"x" * 32 * 1024 * 1024, "text/plain")  # more than the sockets hold
    async with serving(page=lambda _: endless, reader_seconds=0.5) as endpoint:
        _, writer = await connect(endpoint)
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        writer.write(GET)
        await has_readers(endpoint, 1)
        await has_readers(endpoint, 0)
        transport.abort()


async def test_readers_beyond_the_places_wait_until_one_is_free() -> None:
    at_once: list[int] = []

    def page(_accept: str) -> Page:
        at_once.append(endpoint.readers)
        return Page(b"", "text/plain")

    async with serving(page=page) as endpoint:
        silent = [await connect(endpoint) for _ in range(MOST_READERS)]
        await has_readers(endpoint, MOST_READERS)
        late = asyncio.create_task(answer(endpoint, GET))
        await asyncio.sleep(0.2)
        assert not late.done() and endpoint.readers == MOST_READERS
        silent[0][1].close()
        assert status(await late) == 200
        assert at_once == [MOST_READERS]
        for _, writer in silent:
            writer.close()
        await has_readers(endpoint, 0)


async def test_between_two_readers_there_is_a_pause() -> None:
    pauses: list[float] = []
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await over.wait()

    async with serving(sleep=sleep) as endpoint:
        assert status(await answer(endpoint, GET)) == 200
        await has_readers(endpoint, 0)
        late = asyncio.create_task(answer(endpoint, GET))
        await asyncio.sleep(0.2)
        assert not late.done() and (endpoint.readers, pauses) == (0, [PAUSE_SECONDS])
        over.set()
        assert status(await late) == 200


async def test_out_of_descriptors_it_waits_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    async with serving(sleep=sleep) as endpoint:
        with socket.socket() as client:
            client.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            try:
                assert isinstance(endpoint.place, Loopback)
                client.connect_ex((endpoint.place.host, endpoint.place.port))
                await has_readers(endpoint, 1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert pauses[0] == RETRY_SECONDS
        assert [record.message for record in caplog.records] == ["cannot accept a reader of metrics"]
        assert status(await answer(endpoint, GET)) == 200


async def test_readers_that_vanish_leave_nothing() -> None:
    async with serving() as endpoint:
        for _ in range(2 * MOST_READERS):
            _, writer = await connect(endpoint)
            writer.write(GET)
            writer.transport.abort()
        assert status(await answer(endpoint, GET)) == 200
        await has_readers(endpoint, 0)


async def test_a_page_that_cannot_be_made_is_an_error_in_the_log_and_no_end(caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def page(_accept: str) -> Page:
        if broken.pop():
            raise KeyError("secret")
        return Page(b"", "text/plain")

    async with serving(page=page) as endpoint:
        received = await answer(endpoint, GET)
        assert status(received) == 500 and b"secret" not in received
        assert [record.message for record in caplog.records] == ["metrics cannot be read"]
        broken.append(False)
        assert status(await answer(endpoint, GET)) == 200


async def test_nobody_is_left_after_the_end() -> None:
    async with serving() as endpoint:
        reader, writer = await connect(endpoint)
        await has_readers(endpoint, 1)
        before = asyncio.all_tasks()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await connect(endpoint)
    assert asyncio.all_tasks() < before


@pytest.mark.parametrize("where", ["port", "socket"])
async def test_a_place_that_is_taken_is_a_mistake_of_the_configuration(where: str, tmp_path: Path) -> None:
    place = Loopback("127.0.0.1", free_port()) if where == "port" else tmp_path / "metrics.sock"
    async with serving(place) as endpoint:
        with pytest.raises(ConfigInvalid, match=r"metrics cannot be served|another daemon serves"):
            Endpoint(place, lambda _: Page(b"", ""), tuple)
        assert status(await answer(endpoint, GET)) == 200


async def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    path.write_text("precious")
    with pytest.raises(ConfigInvalid, match="is not a socket"):
        Endpoint(path, lambda _: Page(b"", ""), tuple)
    assert path.read_text() == "precious"


async def test_a_place_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"metrics cannot be served at '.*nowhere/metrics\.sock': No such file"):
        Endpoint(tmp_path / "nowhere" / "metrics.sock", lambda _: Page(b"", ""), tuple)
