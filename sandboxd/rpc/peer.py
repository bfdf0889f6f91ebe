"""Who is at the other end of a unix connection, told by the kernel and never by the peer.

gRPC does not show the uid of a unix peer. `relay` reads it with SO_PEERCRED and connects on to the gRPC server from a
socket bound to a random name, which the server does show; this table maps that name back. Must never trust a
connection that it did not name. Called by `relay` (admit, forget) and `interceptors` (of).
"""

import os
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
_ABSTRACT = "unix-abstract:"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel saw it at that moment. `pid` may have been reused since."""

    uid: int
    pid: int
    allowed: bool


class Peers:
    """Living connections by the name that their relayed end is bound to."""

    def __init__(self, allowed_uids: frozenset[int]) -> None:
        # An id that this user namespace does not map reads as the overflow uid: it may be anybody.
        self.allowed = allowed_uids - {overflow_uid()}
        self.operators = frozenset({0, os.geteuid()})
        self._by_name: dict[str, Peer] = {}

    def admit(self, connection: socket.socket) -> tuple[str, Peer]:
        """Name a connection. A peer that may not call is named as well, so that it can be told so."""
        pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        name = secrets.token_hex(16)
        peer = Peer(uid=uid, pid=pid, allowed=uid in self.allowed)
        self._by_name[name] = peer
        return name, peer

    def forget(self, name: str) -> None:
        self._by_name.pop(name, None)

    def of(self, grpc_peer: str) -> Peer | None:
        """The peer behind `ServicerContext.peer()`; None for a connection that did not come through the relay."""
        if not grpc_peer.startswith(_ABSTRACT):
            return None
        return self._by_name.get(grpc_peer.removeprefix(_ABSTRACT))


def bind_name(connection: socket.socket, name: str) -> None:
    """Give a unix socket that name in the abstract namespace: it needs no file, and none is left behind."""
    connection.bind(b"\0" + name.encode())


def overflow_uid() -> int:
    """The uid that stands for every id which has no mapping here."""
    return int(Path("/proc/sys/kernel/overflowuid").read_text())
