"""Serves GET /metrics, /healthz and /readyz, on loopback or on a unix socket of the daemon's own, and nothing else.

Runs on the daemon's event loop, where executions are on their way: so many readers at a time, so many a second, so long
for each, whatever they send or do not read; what is beyond waits in the kernel. Made by `daemon`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from aiohttp import web

from sandboxd.host.listener import Bounds, Listener, Purpose
from sandboxd.listening import Loopback
from sandboxd.metrics.exposition import Page

PATHS: Final = ("/metrics", "/healthz", "/readyz")
MOST_READERS: Final = 8
READER_SECONDS: Final = 5.0
SILENT_SHARE: Final = 0.2  # of them, while all places are taken
PAUSE_SECONDS: Final = 0.05  # between two readers: at most twenty a second cost the loop their page
RETRY_SECONDS: Final = 0.5
MAX_LINE_BYTES: Final = 4096
MAX_HEADERS: Final = 64
BACKLOG: Final = 16

log = logging.getLogger(__name__)

PURPOSE: Final = Purpose(
    key="metrics.listen",
    not_listening="metrics cannot be served",
    not_accepted="cannot accept a reader of metrics",
    too_slow="a reader of metrics was too slow",
    log=log,
)


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
        self.place = place
        self._page = page
        self._reasons = reasons
        bounds = Bounds(
            clients=MOST_READERS,
            client_seconds=reader_seconds,
            silent_seconds=reader_seconds * SILENT_SHARE,
            pause_seconds=PAUSE_SECONDS,
            retry_seconds=RETRY_SECONDS,
            line_bytes=MAX_LINE_BYTES,
            headers=MAX_HEADERS,
            backlog=BACKLOG,
        )
        where = place if isinstance(place, Path) else (place.host, place.port)
        self._listener = Listener(where, self._answer, bounds, PURPOSE, sleep=sleep)

    @property
    def readers(self) -> int:
        return self._listener.clients

    async def close(self) -> None:
        """No reader is left afterwards, and no socket."""
        await self._listener.close()

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
