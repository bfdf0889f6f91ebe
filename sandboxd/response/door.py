"""Lets in who may ask for responses: so many at a time, so long for each, over TLS where it is set.

Runs on the daemon's event loop, where executions are on their way; who is beyond waits in the kernel. Knows nothing of
what is asked. Used by `endpoint`.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from sandboxd.errors import ConfigInvalid
from sandboxd.host.socket_place import clear_stale
from sandboxd.settings.response import ResponseSettings

MOST_CLIENTS: Final = 32
CLIENT_SECONDS: Final = 10.0  # a quarantine of many sandboxes is among what is waited for
HANDSHAKE_SECONDS: Final = 3.0
PAUSE_SECONDS: Final = 0.02  # between two: at most fifty a second cost the loop a handshake
RETRY_SECONDS: Final = 0.5
MAX_LINE_BYTES: Final = 4096
MAX_HEADERS: Final = 64
BACKLOG: Final = 64

Place = Path | tuple[str, int]

log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)  # what a client does wrong he is told, and nobody else


class _Client(web.RequestHandler):
    """One connection. `gone` is set once it has ended, by whichever side."""

    __slots__ = ("gone",)

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            logger=_http_log,
            access_log=None,  # type: ignore[arg-type]  # as its own servers say that there is none
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=0,
        )
        self.gone = asyncio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.gone.set()


class Door:
    """Open from now on, until `close`."""

    def __init__(
        self,
        place: Place,
        tls: ssl.SSLContext | None,
        http: web.Server,
        *,
        client_seconds: float = CLIENT_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """ConfigInvalid if the place cannot be had. The directory of a path must be the daemon's alone."""
        self._loop = asyncio.get_running_loop()
        self.place = place
        self._tls = tls
        self._http = http
        self._client_seconds = client_seconds
        self._sleep = sleep
        self._listening = _listen(place)
        self._free = asyncio.Semaphore(MOST_CLIENTS)
        self._clients: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    @property
    def clients(self) -> int:
        return len(self._clients)

    async def close(self) -> None:
        """Nobody is left afterwards, and no socket."""
        self._accepting.cancel()
        for client in self._clients:
            client.cancel()
        await asyncio.wait({self._accepting, *self._clients})
        self._listening.close()
        if isinstance(self.place, Path):
            self.place.unlink(missing_ok=True)

    async def _accept(self) -> None:
        while True:
            await self._free.acquire()
            try:
                connection, _ = await self._loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("cannot accept who asks for a response", extra={"errno": error.errno})
                self._free.release()
                await self._sleep(RETRY_SECONDS)
                continue
            client = self._loop.create_task(self._serve(connection))
            self._clients.add(client)
            client.add_done_callback(self._gone)
            await self._sleep(PAUSE_SECONDS)

    async def _serve(self, connection: socket.socket) -> None:
        patience = HANDSHAKE_SECONDS if self._tls is not None else None
        client = _Client(self._http, self._loop)  # over TLS the loop gives back a protocol of its own
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: client,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=patience,
                ssl_shutdown_timeout=patience,
            )
        except (OSError, TimeoutError):  # an SSLError is an OSError
            connection.close()  # he was gone already, or is not who he should be
            return
        try:
            async with asyncio.timeout(self._client_seconds):
                await client.gone.wait()
        except TimeoutError:
            log.debug("who asked for a response was too slow")
        finally:
            transport.abort()

    def _gone(self, client: asyncio.Task[None]) -> None:
        self._clients.discard(client)
        self._free.release()


def server_context(settings: ResponseSettings) -> ssl.SSLContext | None:
    """ConfigInvalid names the key that cannot be used."""
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # There is nobody to ask for a passphrase: without this answer it would be asked for on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise ConfigInvalid(
            f"response.certificate {settings.certificate!r} and key {settings.key!r} cannot be used together: {error}; "
            "give a certificate in PEM and its own key, without a passphrase"
        ) from error
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigInvalid(
                f"response.client_ca {settings.client_ca!r} holds no certificate that can be read: {error}"
            ) from error
    return context


def _listen(place: Place) -> socket.socket:
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with contextlib.ExitStack() as undo:
        listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        undo.callback(listening.close)
        try:
            if isinstance(place, Path):
                _clear(place)
                listening.bind(os.fspath(place))
                place.chmod(0o600)  # before listen(2) nobody can connect
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(place)
            listening.listen(BACKLOG)
        except OSError as error:
            named = str(place) if isinstance(place, Path) else f"{place[0]}:{place[1]}"
            raise ConfigInvalid(
                f"responses cannot be asked for at {named!r}: {error.strerror}; set response.listen to a free place"
            ) from error
        undo.pop_all()
    return listening


def _clear(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        clear_stale(directory, path, "response.listen")
    finally:
        os.close(directory)
