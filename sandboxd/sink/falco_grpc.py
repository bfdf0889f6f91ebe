"""Falco's gRPC outputs: clients fetch events, over a unix socket of our own and, with client certificates, over TCP.

Nobody without a certificate learns anything over TCP, and nobody's slowness costs more than the ring. It confirms
nothing, so it cannot be required. A server of its own beside the API's, made when it is first sent to. Takes long to
import (gRPC's generated messages): only where it is configured. Found by name through `plugin`.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from sandboxd.errors import ConfigInvalid
from sandboxd.host.socket_place import clear_stale, locked, own_directory, own_inner_directory
from sandboxd.listening import PATH_MAX
from sandboxd.settings.sinks.falco_grpc import FalcoGrpcSettings, FalcoGrpcTls
from sandboxd.sink.base import Record, Sink, SinkUnavailable
from sandboxd.sink.falco_ring import Ring
from sandboxd.sink.falco_service import Outputs, encode, handlers

_INNER = "s"  # what gRPC binds, in a directory that nobody else enters, before it is moved to its place
_AT_ONCE = 8  # encoded before others have their turn
_STOP_SECONDS = 1.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 4096),  # a request is empty
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", 64),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.so_reuseport", 0),
)
_MOST_CALLS = 64

log = logging.getLogger(__name__)


class FalcoGrpcSink:
    """Holds its place from the start, so that whoever comes second is told at once."""

    def __init__(self, settings: FalcoGrpcSettings) -> None:
        self._name = settings.name
        self._ring = Ring(settings.queue_events, settings.queue_bytes)
        self._outputs = Outputs(self._ring)
        tls = settings.tls
        self._tls = None if tls is None else (tls.address, _credentials(f"sinks.{settings.name}.tls", tls))
        self._place = _Place(settings)
        self._server: grpc.aio.Server | None = None
        self._dropping = False

    @property
    def dropped(self) -> int:
        """Events that nobody fetched in time. They are on record all the same."""
        return self._ring.dropped

    async def send(self, records: Sequence[Record]) -> None:
        if self._server is None:
            self._server = await self._serve()
        before = self._ring.dropped
        for number, record in enumerate(records, 1):
            self._ring.put(encode(record))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._tell(dropping=self._ring.dropped > before)

    async def close(self) -> None:
        """Those who are there get what is queued, for a moment."""
        self._outputs.close()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(_STOP_SECONDS)
        self._place.close()
        if len(self._ring):
            log.info("events that nobody fetched are only on record", extra={"sink": self._name, "n": len(self._ring)})

    async def _serve(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            handlers=handlers(self._outputs), options=_OPTIONS, maximum_concurrent_rpcs=_MOST_CALLS
        )
        where = ""
        try:
            where = self._place.inner
            server.add_insecure_port(f"unix:{where}")
            if self._tls is not None:
                where, credentials = self._tls
                server.add_secure_port(where, credentials)
            await server.start()
            self._place.show()
        except (RuntimeError, OSError) as error:
            await server.stop(None)
            raise SinkUnavailable(f"cannot listen at {where!r}; set another place, or free this one") from error
        except BaseException:
            await server.stop(None)
            raise
        log.info("events can be fetched", extra={"sink": self._name, "socket": str(self._place.path)})
        return server

    def _tell(self, *, dropping: bool) -> None:
        """Once when it begins, not for each."""
        if dropping and not self._dropping:
            log.warning("events are dropped that nobody fetches", extra={"sink": self._name, "dropped": self.dropped})
        self._dropping = dropping


class _Place:
    """The socket in the file system. gRPC binds where only we can come, so that its mode is right before it is seen."""

    def __init__(self, settings: FalcoGrpcSettings) -> None:
        key = f"sinks.{settings.name}.socket"
        self.path = Path(settings.socket)
        self._mode = int(settings.socket_mode, 8)
        self._folder = f".{self.path.name}.d"
        self.inner = str(self.path.parent / self._folder / _INNER)
        if len(os.fsencode(self.inner)) > PATH_MAX:
            raise ConfigInvalid(f"socket path {str(self.path)!r} is too long; set {key} to a shorter one")
        with contextlib.ExitStack() as undo:
            # Beside the API's socket the directory's mode is the API's; one of our own lets those in who may connect.
            mode = 0o700 if self._mode == 0o600 else 0o710
            self._directory = own_directory(self.path.parent, mode, key, shared=True)
            undo.callback(os.close, self._directory)
            self._lock = locked(self._directory, self.path, key)
            undo.callback(os.close, self._lock)
            clear_stale(self._directory, self.path, key)
            own_inner_directory(self._directory, self._folder, _INNER, self.path)
            undo.pop_all()
        self._closed = False

    def show(self) -> None:
        """What gRPC bound gets its mode, and then its name."""
        inner = f"{self._folder}/{_INNER}"
        os.chmod(inner, self._mode, dir_fd=self._directory)
        os.rename(inner, self.path.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def close(self) -> None:
        """The lock file stays: removing it would let two in. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for name in (self.path.name, f"{self._folder}/{_INNER}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
        with contextlib.suppress(OSError):
            os.rmdir(self._folder, dir_fd=self._directory)
        os.close(self._lock)
        os.close(self._directory)


def _credentials(section: str, tls: FalcoGrpcTls) -> grpc.ServerCredentials:
    """Clients must show a certificate. ConfigInvalid, naming the key below `section`, for what cannot be used."""
    files = {}
    for name, path in (("key", tls.key), ("certificate", tls.certificate), ("client_ca", tls.client_ca)):
        try:
            files[name] = Path(path).read_bytes()
        except OSError as error:
            raise ConfigInvalid(f"{section}.{name} {path!r} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(tls.client_ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigInvalid(f"{section}.client_ca {tls.client_ca!r} holds no certificate: {error}") from error
    try:
        # There is nobody to ask for a passphrase: without this answer it would be asked for on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise ConfigInvalid(
            f"{section}.certificate {tls.certificate!r} and key {tls.key!r} cannot be used together: {error}; give a"
            " certificate in PEM and its own key, without a passphrase"
        ) from error
    pair = (files["key"], files["certificate"])
    return grpc.ssl_server_credentials([pair], root_certificates=files["client_ca"], require_client_auth=True)


def create(settings: FalcoGrpcSettings, _node: str) -> Sink:
    return FalcoGrpcSink(settings)
