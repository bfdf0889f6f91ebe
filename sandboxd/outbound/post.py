"""Posts bodies to a configured server over http or https, and says whether it took them; asks whether it is there.

Follows no redirect, takes no proxy or credential from the environment, keeps no cookie, reads next to nothing of an
answer. Takes long to import (aiohttp): only where such a server is configured. Used by the sinks that speak HTTP.
"""

import zlib
from dataclasses import dataclass
from typing import Self

import aiohttp

from sandboxd.outbound.tls import client_context
from sandboxd.outbound.token import TokenFile, TokenUnreadable
from sandboxd.settings.outbound import Outbound

MOST_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is cut to MOST_ANSWER_BYTES. `retry_after` is what the header of that name says, as it stands there."""

    status: int
    body: bytes
    retry_after: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class NoAnswer(Exception):
    """Nothing came of it, and the message says why, without addresses or secrets."""


async def _begin(content: aiohttp.StreamReader) -> bytes:
    """All of a body of ordinary length, however it is cut on its way."""
    taken = b""
    while len(taken) < MOST_ANSWER_BYTES and (more := await content.read(MOST_ANSWER_BYTES - len(taken))):
        taken += more
    return taken


class Poster:
    """Bound to the running event loop from its first post on. ConfigInvalid, naming the key below `section`, for a
    certificate, key or CA that cannot be used."""

    def __init__(self, section: str, settings: Outbound, connections: int) -> None:
        self._settings = settings
        self._token = None if settings.token_file is None else TokenFile(settings.token_file)
        self._tls = client_context(section, settings) if settings.url.lower().startswith("https:") else None
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, content_type: str, path: str = "", *, plain: bool = False) -> Answer:
        """To the configured URL with `path` behind it. NoAnswer for whatever goes wrong on the way, in time.

        `plain`: not compressed, whatever the configuration says.
        """
        headers = {"Content-Type": content_type}
        if self._settings.compression and not plain:
            headers["Content-Encoding"] = "gzip"
            body = zlib.compress(body, level=1, wbits=31)
        return await self._ask("POST", path, headers, body)

    async def get(self, path: str) -> Answer:
        """As `post`, without a body."""
        return await self._ask("GET", path, {}, None)

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Answer:
        try:
            if self._token is not None:
                headers["Authorization"] = f"Bearer {self._token.token()}"
            headers["Accept-Encoding"] = "identity"  # else a gateway may compress the answer, which is read as it is
            url = self._settings.url + path
            async with self._opened().request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
                return Answer(answer.status, await _begin(answer.content), answer.headers.get("Retry-After", ""))
        except TimeoutError as error:
            raise NoAnswer(f"it did not answer within {self._settings.timeout_seconds:g} s") from error
        except TokenUnreadable as error:
            raise NoAnswer(str(error)) from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # UnicodeError: of a host name that none can have
            raise NoAnswer(f"{type(error).__name__}: {error}"[:200]) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls or True, limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._settings.headers,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds),
                trust_env=False,
            )
        return self._session
