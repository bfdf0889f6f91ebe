"""Where the daemon listens and how a channel to it is made.

Never sends a token over a connection that does not authenticate its server. Used by both clients.
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxd.client.errors import InvalidRequest

MAX_RECEIVE_BYTES = 256 * 1024 * 1024  # the daemon caps what it sends; this only bounds what a broken one could

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),  # the daemon answers what is too large, and says its cap
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # an Execute that may have started must not be sent again
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes for a TCP listener. Without `root_certificates` those of grpc are used; the other two are for mTLS."""

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = None


def default_address(environ: Mapping[str, str], uid: int) -> str:
    """`$SANDBOXD_ADDRESS`, else the socket on which a daemon of this user listens by default."""
    if address := environ.get("SANDBOXD_ADDRESS", ""):
        return address
    if uid == 0:
        return "unix:/run/sandboxd/sandboxd.sock"
    runtime_dir, state_dir = environ.get("XDG_RUNTIME_DIR", ""), environ.get("XDG_STATE_HOME", "")
    if runtime_dir.startswith("/"):
        return f"unix:{runtime_dir}/sandboxd/sandboxd.sock"
    if not state_dir.startswith("/"):
        state_dir = f"{environ.get('HOME') or _home(uid)}/.local/state"
    return f"unix:{state_dir}/sandboxd/run/sandboxd.sock"


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise InvalidRequest(
            f"uid {uid} has no home directory; set SANDBOXD_ADDRESS, XDG_RUNTIME_DIR or HOME"
        ) from None


def target(address: str | None, token: str | None, tls: Tls | None) -> str:
    """The gRPC target of `address`; `InvalidRequest` where the connection would be unsafe.

    A bare absolute path is a unix socket. Everything that is no unix socket needs `tls`: there is no plaintext TCP.
    """
    chosen = address or default_address(os.environ, os.geteuid())
    if chosen.startswith("/"):
        chosen = f"unix:{chosen}"
    if chosen.startswith("unix://"):
        chosen = f"unix:{chosen.removeprefix('unix://')}"
    if chosen.startswith("unix:"):
        if tls is not None:
            raise InvalidRequest(f"tls makes no sense for the unix socket {chosen!r}; leave it out")
        return chosen
    if tls is None:
        what = "a token would travel in the clear" if token else "nothing would authenticate the daemon"
        raise InvalidRequest(f"refusing {chosen!r} without tls: {what}; pass tls=Tls(…) or a unix: address")
    return chosen


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with each call. `target` has already refused a token where it could be overheard."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def socket_path(address: str) -> Path | None:
    """The socket file of a unix target, None for any other."""
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
