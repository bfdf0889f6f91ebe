"""Serves GET /metrics, /healthz and /readyz, on loopback or on a unix socket of the daemon's own, and nothing else.

Runs on the daemon's event loop, where executions are on their way: so many readers at a time, so many a second, so long
for each, whatever they send or do not read; what is beyond waits in the kernel. Made by `daemon`.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from aiohttp import web

from sandboxd.errors import ConfigInvalid
from sandboxd.host.socket_place import clear_stale
from sandboxd.listening import Loopback
from sandboxd.metrics.exposition import Page

PATHS: Final = ("/metrics", "/healthz", "/readyz")
MOST_READERS: Final = 8
READER_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.05  # between two readers: at most twenty a second cost the loop their page
RETRY_SECONDS: Final = 0.5
MAX_LINE_BYTES: Final = 4096
MAX_HEADERS: Final = 64
BACKLOG: Final = 16

log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)  # what a reader does wrong he is told, and nobody else


class _Reader(web.RequestHandler):
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


class Endpoint:
    """Serves from now on, until `close`. `page` is asked anew for each reader with its `Accept`; `reasons` say why this
    node takes no work."""

    def __init__(
        self,
        place: Loopback | Path,
        page: Callable[[str], Page],
        reasons: Callable[[], Collection[str]],
        *,
        reader_seconds: float = READER_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """ConfigInvalid if the place cannot be had. The directory of a path must be the daemon's alone."""
        self._loop = asyncio.get_running_loop()
        self.place = place
        self._page = page
        self._reasons = reasons
        self._reader_seconds = reader_seconds
        self._sleep = sleep
        self._listening = _listen(place)
        self._free = asyncio.Semaphore(MOST_READERS)
        self._readers: set[asyncio.Task[None]] = set()
        self._http = web.Server(self._answer)
        self._accepting = self._loop.create_task(self._accept())

    @property
    def readers(self) -> int:
        return len(self._readers)

    async def close(self) -> None:
        """No reader is left afterwards, and no socket."""
        self._accepting.cancel()
        for reader in self._readers:
            reader.cancel()
        await asyncio.wait({self._accepting, *self._readers})
        self._listening.close()
        if isinstance(self.place, Path):
            self.place.unlink(missing_ok=True)

    async def _accept(self) -> None:
        while True:
            await self._free.acquire()
            try:
                connection, _ = await self._loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("cannot accept a reader of metrics", extra={"errno": error.errno})
                self._free.release()
                await self._sleep(RETRY_SECONDS)
                continue
            reader = self._loop.create_task(self._serve(connection))
            self._readers.add(reader)
            reader.add_done_callback(self._gone)
            await self._sleep(PAUSE_SECONDS)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            transport, reader = await self._loop.connect_accepted_socket(
                lambda: _Reader(self._http, self._loop), connection
            )
        except OSError:
            connection.close()  # he was gone already
            return
        try:
            async with asyncio.timeout(self._reader_seconds):
                await reader.gone.wait()
        except TimeoutError:
            log.debug("a reader of metrics was too slow")
        finally:
            transport.abort()

    def _gone(self, reader: asyncio.Task[None]) -> None:
        self._readers.discard(reader)
        self._free.release()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in PATHS:
            response = web.Response(status=404, text=f"there is {', '.join(PATHS)}, and nothing else\n")
        elif request.method != "GET":
            response = web.Response(status=405, text=f"{request.path} can be got\n", headers={"Allow": "GET"})
        elif request.path == "/healthz":
            response = web.Response(text="ok\n")  # that the loop answers is what it says
        elif request.path == "/readyz":
            reasons = self._reasons()
            response = web.Response(status=503 if reasons else 200, text="\n".join((*(reasons or ("ready",)), "")))
        else:
            response = self._paged(request.headers.get("Accept", ""))
        response.force_close()
        return response

    def _paged(self, accept: str) -> web.Response:
        try:
            page = self._page(accept)
        except Exception:  # the outer edge: a number that cannot be read is the reader's loss, not the daemon's
            log.exception("metrics cannot be read")
            return web.Response(status=500, text="the daemon's log says why\n")
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})


def _listen(place: Loopback | Path) -> socket.socket:
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET6 if ":" in place.host else socket.AF_INET
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
                listening.bind((place.host, place.port))
            listening.listen(BACKLOG)
        except OSError as error:
            raise ConfigInvalid(
                f"metrics cannot be served at {_named(place)!r}: {error.strerror}; set metrics.listen to a free place"
            ) from error
        undo.pop_all()
    return listening


def _clear(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        clear_stale(directory, path, "metrics.listen")
    finally:
        os.close(directory)


def _named(place: Loopback | Path) -> str:
    return str(place) if isinstance(place, Path) else f"{place.host}:{place.port}"
