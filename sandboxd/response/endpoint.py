"""POST /v1/response: a Falco event in, and what the configuration maps its rule to is done to whom it is about.

Never tells more than a word of a closed set, nothing of what it was sent; never lets the event choose the measure. Who
does not show what he must is heard no further. Takes long to import (aiohttp): only where it is configured. Made by
`daemon`.
"""

import hmac
import json
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web

from sandboxd.errors import AuditUnavailable, RuntimeFailed, SandboxdError
from sandboxd.model import LOCAL_TENANT, OPERATOR, Caller
from sandboxd.outbound.token import TokenFile, TokenUnreadable
from sandboxd.response import falco
from sandboxd.response.demand import Demand, Measure
from sandboxd.response.door import Door, server_context
from sandboxd.response.responder import Responder
from sandboxd.settings.response import ResponseSettings

PATH: Final = "/v1/response"
METHOD: Final = f"POST {PATH}"
MAX_BODY_BYTES: Final = 256 * 1024
LEAST_TOKEN_CHARS: Final = 16
_BEARER = "Bearer "
_NAME_CHARS = 64

log = logging.getLogger(__name__)


class Endpoint:
    """Serves from now on, until `close`."""

    def __init__(
        self,
        settings: ResponseSettings,
        responder: Responder,
        ids: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """ConfigInvalid if the place cannot be had or a certificate not be used. `clock` is monotonic, in seconds."""
        self._rules = {rule: Measure(measure) for rule, measure in settings.rules.items()}
        self._token = None if settings.token_file is None else TokenFile(settings.token_file)
        self._responder = responder
        self._ids = ids
        self._rate = _Rate(settings.max_per_minute, clock)
        self._door = Door(settings.place, server_context(settings), web.Server(self._answer))

    async def close(self) -> None:
        await self._door.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        status, words = await self._judged(request)
        response = web.json_response(words, status=status, headers={"Server": "sandboxd"})
        response.force_close()
        return response

    async def _judged(self, request: web.BaseRequest) -> tuple[int, dict[str, str]]:
        if request.path != PATH:
            return 404, _refused("no_such_path")
        if request.method != "POST":
            return 405, _refused("post_it")
        if not self._is_known(request):
            return 401, _refused("unauthenticated")
        if not self._rate.take():
            return 429, _refused("rate")
        body = await _body(request)
        if body is None:
            return 413, _refused("too_large")
        try:
            event = falco.read(body)
        except falco.NoEvent as error:
            return 400, _refused(str(error))
        measure = self._rules.get(event.rule)
        if measure is None:
            return 200, {"result": "ignored"}
        if event.target is None:
            return 409, _refused("no_target")
        return await self._respond(Demand(measure, event.target, rule=event.rule), _caller(request))

    async def _respond(self, demand: Demand, caller: Caller) -> tuple[int, dict[str, str]]:
        try:
            await self._responder.respond(demand, caller, self._ids())
        except AuditUnavailable as error:
            return 503, _refused(error.reason)
        except RuntimeFailed as error:
            return 500, _refused(error.reason)
        except SandboxdError as error:
            return 409, _refused(error.reason)
        except Exception:  # the outer edge: whoever asks is told that it failed, and the log why
            log.exception("a response broke")
            return 500, _refused("internal")
        return 200, {"result": "taken"}

    def _is_known(self, request: web.BaseRequest) -> bool:
        """The client's certificate was seen to when it connected."""
        if self._token is None:
            return True
        try:
            expected = self._token.token()
        except TokenUnreadable as error:
            log.error("nobody can ask for a response", extra={"error": str(error)})
            return False
        if len(expected) < LEAST_TOKEN_CHARS:
            log.error("nobody can ask for a response: the token is too short", extra={"least": LEAST_TOKEN_CHARS})
            return False
        shown = request.headers.getall("Authorization", [])
        given = shown[0] if len(shown) == 1 else ""
        return hmac.compare_digest(given.encode(errors="replace"), (_BEARER + expected).encode())


class _Rate:
    """A bucket that refills continuously; its burst is a quarter of a minute's worth."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_second = per_minute / 60
        self._most = max(1.0, per_minute / 4)
        self._clock = clock
        self._left = self._most
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def _body(request: web.BaseRequest) -> bytes | None:
    """None if it is too large, whatever its headers say."""
    body = bytearray()
    while piece := await request.content.readany():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _caller(request: web.BaseRequest) -> Caller:
    """Who showed a certificate goes by its name, which its authority vouches for."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    names = [value for part in (certificate or {}).get("subject", ()) for name, value in part if name == "commonName"]
    subject = f"webhook:{names[0][:_NAME_CHARS]}" if names else "webhook"
    return Caller(LOCAL_TENANT, json.dumps(subject)[1:-1], (OPERATOR,), METHOD)


def _refused(reason: str) -> dict[str, str]:
    return {"result": "refused", "reason": reason}
