"""One question to an OPA server over http, https or a unix socket: what it answered, or why nothing came of it.

Follows no redirect, takes no proxy or credential from the environment, keeps no cookie, decompresses nothing and reads
no more than it was told. The one place that knows aiohttp. Used by `policy.opa`; how to read an answer is in
`policy.opa_answer`.
"""

import os
import select
import ssl
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from sandboxd.outbound.tls import client_context
from sandboxd.outbound.token import TokenFile, TokenUnreadable
from sandboxd.settings.policy import Opa
from sandboxd.trace_context import Headers

CONNECTIONS = 64  # more questions than that wait for one another, within their deadlines
# A failing built-in is an error and not silence, and the answer says which bundles gave it.
_PARAMETERS = {"strict-builtin-errors": "true", "provenance": "true"}
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    content_type: str
    encoding: str
    body: bytes


class NoReply(Exception):
    """`heard`: the server is there and spoke, but what it said cannot be taken."""

    def __init__(self, message: str, *, heard: bool = False) -> None:
        super().__init__(message)
        self.heard = heard


class _Connector(aiohttp.BaseConnector):
    """Takes no kept connection up again on which anything came unasked: it would be taken for the next answer."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                return connection
            if protocol not in self._known:
                self._known.add(protocol)
                return connection
            if not protocol.should_close and not _has_unread(connection):
                return connection
            connection.close()

    @cached_property
    def _known(self) -> WeakSet[ResponseHandler]:
        """The ends of connections that were asked on before."""
        return WeakSet()


def _has_unread(connection: Connection) -> bool:
    """Whether something arrived that the loop had no time for yet."""
    sock = connection.transport.get_extra_info("socket") if connection.transport is not None else None
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class _TcpConnector(_Connector, aiohttp.TCPConnector):
    pass


class _UnixConnector(_Connector, aiohttp.UnixConnector):
    pass


class OpaClient:
    """Bound to the running event loop. ConfigInvalid for a certificate, key or CA that cannot be used."""

    def __init__(self, settings: Opa) -> None:
        self._most_bytes = settings.max_response_bytes
        self._token = TokenFile(settings.token_file) if settings.token_file is not None else None
        split = urlsplit(settings.url)
        if split.scheme == "unix":
            base = "http://localhost"
            connector: aiohttp.BaseConnector = _UnixConnector(unquote(split.path), limit=CONNECTIONS)
        else:
            base = settings.url.rstrip("/")
            context = client_context("policy.opa", settings) if split.scheme == "https" else True
            connector = _TcpConnector(ssl=context, limit=CONNECTIONS)
        self._url = URL(f"{base}/v1/data/{settings.decision}").with_query(_PARAMETERS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),  # whoever asks has a deadline for all of it
            trust_env=False,
        )

    async def ask(self, document: bytes, trace: Headers = ()) -> Reply:
        """NoReply for whatever goes wrong. Has no deadline of its own. `trace` are headers that it is told beside."""
        body = b'{"input":' + document + b"}"
        try:
            try:
                return await self._post(body, trace)
            except aiohttp.ServerDisconnectedError:
                # A kept connection may be closed just as it is taken up again. To ask is to change nothing, so it may
                # be done twice.
                return await self._post(body, trace)
        except (aiohttp.ClientError, OSError) as error:
            raise NoReply(_sentence(error)) from error
        except TokenUnreadable as error:
            raise NoReply(str(error)) from error

    async def close(self) -> None:
        await self._session.close()

    async def _post(self, body: bytes, trace: Headers) -> Reply:
        headers = dict(trace)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.token()}"
        response = await self._session.post(self._url, data=body, headers=headers, allow_redirects=False)
        try:
            return Reply(
                response.status,
                response.content_type,
                response.headers.get("Content-Encoding", "identity"),
                await self._read(response),
            )
        finally:
            response.close()  # a connection with more to come is not used again; one that was read to its end is

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._most_bytes:
                raise NoReply(f"its answer is over {self._most_bytes} bytes", heard=True)
        return bytes(body)


def _sentence(error: aiohttp.ClientError | OSError) -> str:
    """Without addresses: it reaches the caller."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refused):
            return f"its certificate was refused: {refused.verify_message}"
        case aiohttp.ClientConnectorDNSError():
            return "it cannot be reached: its name is not known"
        case aiohttp.ClientConnectorError(os_error=cause):
            return f"it cannot be reached: {os.strerror(cause.errno) if cause.errno else type(cause).__name__}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "its answer broke off"
        case aiohttp.ClientResponseError():
            return "its answer is not HTTP"
        case _:
            return f"the connection failed: {type(error).__name__}"
