"""Lets in who may ask for responses: so many at a time, so long for each, over TLS where it is set.

Knows nothing of what is asked. Used by `endpoint`.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from sandboxd.errors import ConfigInvalid
from sandboxd.host.listener import Bounds, Listener, Place, Purpose
from sandboxd.settings.response import ResponseSettings

MOST_CLIENTS: Final = 32
CLIENT_SECONDS: Final = 10.0  # a quarantine of many sandboxes is among what is waited for
SILENT_SHARE: Final = 0.2  # of them, while all places are taken
HANDSHAKE_SECONDS: Final = 3.0
PAUSE_SECONDS: Final = 0.02  # between two: at most fifty a second cost the loop a handshake
RETRY_SECONDS: Final = 0.5
MAX_LINE_BYTES: Final = 4096
MAX_HEADERS: Final = 64
BACKLOG: Final = 64

PURPOSE: Final = Purpose(
    key="response.listen",
    not_listening="responses cannot be asked for",
    not_accepted="cannot accept who asks for a response",
    too_slow="who asked for a response was too slow",
    log=logging.getLogger(__name__),
)


class Door(Listener):
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
        bounds = Bounds(
            clients=MOST_CLIENTS,
            client_seconds=client_seconds,
            silent_seconds=client_seconds * SILENT_SHARE,
            handshake_seconds=HANDSHAKE_SECONDS,
            pause_seconds=PAUSE_SECONDS,
            retry_seconds=RETRY_SECONDS,
            line_bytes=MAX_LINE_BYTES,
            headers=MAX_HEADERS,
            backlog=BACKLOG,
        )
        super().__init__(place, http.request_handler, bounds, PURPOSE, tls=tls, sleep=sleep)


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
