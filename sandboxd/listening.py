"""Where something without a caller's identity may be listened for: loopback, or a unix socket. Pure; opens nothing.

Never reads as loopback what another machine could reach. Used by `settings`, which names the mistake, and by whoever
opens the place.
"""

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

_TCP = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_UNIX = "unix://"
PATH_MAX = 107  # sun_path of unix(7), less its NUL


@dataclass(frozen=True, slots=True)
class Loopback:
    host: str
    port: int


def place(text: str) -> Loopback | Path:
    """`127.0.0.1:PORT`, `[::1]:PORT` or `unix:///PATH`; ValueError that says what would mend it."""
    if text.startswith(_UNIX):
        return _path(text.removeprefix(_UNIX))
    host, port = address(text)
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(
            "can be reached from elsewhere, and nobody who comes there is known; use 127.0.0.1:PORT, with a proxy that"
            " authenticates in front of it"
        )
    return Loopback(host, port)


def address(text: str) -> tuple[str, int]:
    """Host and port of `ADDRESS:PORT`, any address; ValueError that says what would mend it."""
    match = _TCP.fullmatch(text)
    if match is None:
        raise ValueError("is no address with a port; use 127.0.0.1:PORT, [::1]:PORT or unix:///PATH")
    host, port = match["six"] or match["four"], int(match["port"])
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"has no address in it ({error}); use 127.0.0.1:PORT") from error
    if not 1 <= port <= 65535:
        raise ValueError("has no port from 1 to 65535; use 127.0.0.1:PORT")
    return host, port


def _path(text: str) -> Path:
    if not text.startswith("/") or "\0" in text or os.path.normpath(text) != text:
        raise ValueError("must name an absolute path, without detours; use unix:///PATH")
    if len(os.fsencode(text)) > PATH_MAX:
        raise ValueError(f"is too long for a socket; {PATH_MAX} bytes are the most")
    return Path(text)
