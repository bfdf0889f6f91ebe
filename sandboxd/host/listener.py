"""Lets in who speaks HTTP: so many at a time, so many a second, so long for each; over TLS where it is set.

Runs on the daemon's event loop, where executions are on their way; who is beyond waits in the kernel. Knows nothing of
what is asked, and never keeps a place for long for who asks nothing while all are taken. Takes long to import
(aiohttp). Used by `metrics.endpoint` and `response.door`.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiohttp import web

from sandboxd.errors import ConfigInvalid
from sandboxd.host.socket_place import clear_stale

Place = Path | tuple[str, int]
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)  # what a client does wrong he is told, and nobody else


@dataclass(frozen=True, slots=True)
class Bounds:
    """What clients may take, whatever they do."""

    clients: int
    client_seconds: float
    silent_seconds: float  # of `client_seconds`, while all places are taken: for who has not sent the head of a request
    pause_seconds: float  # between two
    retry_seconds: float
    line_bytes: int
    headers: int
    backlog: int
    handshake_seconds: float | None = None  # only with TLS


@dataclass(frozen=True, slots=True)
class Purpose:
    """What is listened for, in the words of the messages about it."""

    key: str  # of the configuration, that names the place
    not_listening: str
    not_accepted: str
    too_slow: str
    log: logging.Logger


class _Client(web.RequestHandler):
    """One connection. `asked` once a request's head is there; `gone` is set once it has ended, by whichever side."""

    __slots__ = ("asked", "gone", "since")

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, bounds: Bounds) -> None:
        super().__init__(
            manager,
            loop=loop,
            logger=_http_log,
            access_log=None,  # type: ignore[arg-type]  # as its own servers say that there is none
            max_line_size=bounds.line_bytes,
            max_field_size=bounds.line_bytes,
            max_headers=bounds.headers,
            lingering_time=0,
        )
        self.since = loop.time()
        self.asked = False
        self.gone = asyncio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.gone.set()


class Listener:
    """Open from now on, until `close`."""

    def __init__(
        self,
        place: Place,
        answer: Answer,
        bounds: Bounds,
        purpose: Purpose,
        *,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """ConfigInvalid if the place cannot be had. The directory of a path must be the daemon's alone."""
        self._loop = asyncio.get_running_loop()
        self.place = place
        self._answer = answer
        self._bounds = bounds
        self._purpose = purpose
        self._tls = tls
        self._sleep = sleep
        self._listening = _listen(place, bounds.backlog, purpose)
        self._clients: dict[asyncio.Task[None], _Client] = {}  # the oldest first
        self._one_left = asyncio.Event()
        self._http = web.Server(self._asked)
        self._accepting = self._loop.create_task(self._accept())

    @property
    def clients(self) -> int:
        return len(self._clients)

    async def close(self) -> None:
        """Nobody is left afterwards, and no socket."""
        self._accepting.cancel()
        for serving in self._clients:
            serving.cancel()
        await asyncio.wait({self._accepting, *self._clients})
        self._listening.close()
        if isinstance(self.place, Path):
            self.place.unlink(missing_ok=True)

    async def _accept(self) -> None:
        while True:
            while len(self._clients) >= self._bounds.clients:
                await self._make_room()
            try:
                connection, _ = await self._loop.sock_accept(self._listening)
            except OSError as error:
                self._purpose.log.warning(self._purpose.not_accepted, extra={"errno": error.errno})
                await self._sleep(self._bounds.retry_seconds)
                continue
            client = _Client(self._http, self._loop, self._bounds)
            serving = self._loop.create_task(self._serve(client, connection))
            self._clients[serving] = client
            serving.add_done_callback(self._left)
            await self._sleep(self._bounds.pause_seconds)

    async def _make_room(self) -> None:
        """Until somebody leaves, or the oldest that asks nothing was waited for long enough and is shown out."""
        self._one_left.clear()
        silent = next(((serving, client) for serving, client in self._clients.items() if not client.asked), None)
        if silent is None:
            await self._one_left.wait()
            return
        serving, client = silent
        try:
            async with asyncio.timeout_at(client.since + self._bounds.silent_seconds):
                await self._one_left.wait()
        except TimeoutError:
            if not client.asked:
                serving.cancel()
                await self._one_left.wait()

    async def _serve(self, client: _Client, connection: socket.socket) -> None:
        handshake_seconds = self._bounds.handshake_seconds if self._tls is not None else None
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: client,  # over TLS the loop gives back a protocol of its own
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_seconds,
                ssl_shutdown_timeout=handshake_seconds,
            )
        except (OSError, TimeoutError):  # an SSLError is an OSError
            connection.close()  # he was gone already, or is not who he should be
            return
        try:
            async with asyncio.timeout(self._bounds.client_seconds):
                await client.gone.wait()
        except TimeoutError:
            self._purpose.log.debug(self._purpose.too_slow)
        finally:
            transport.abort()

    async def _asked(self, request: web.BaseRequest) -> web.StreamResponse:
        cast("_Client", request.protocol).asked = True
        return await self._answer(request)

    def _left(self, serving: asyncio.Task[None]) -> None:
        del self._clients[serving]
        self._one_left.set()


def _listen(place: Place, backlog: int, purpose: Purpose) -> socket.socket:
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with contextlib.ExitStack() as undo:
        listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        undo.callback(listening.close)
        try:
            if isinstance(place, Path):
                _clear(place, purpose.key)
                listening.bind(os.fspath(place))
                place.chmod(0o600)  # before listen(2) nobody can connect
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(place)
            listening.listen(backlog)
        except OSError as error:
            named = str(place) if isinstance(place, Path) else f"{place[0]}:{place[1]}"
            raise ConfigInvalid(
                f"{purpose.not_listening} at {named!r}: {error.strerror}; set {purpose.key} to a free place"
            ) from error
        undo.pop_all()
    return listening


def _clear(path: Path, key: str) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        clear_stale(directory, path, key)
    finally:
        os.close(directory)
