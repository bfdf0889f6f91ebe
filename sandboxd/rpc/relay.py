"""Carries bytes between callers of the daemon's socket and the gRPC server behind it, which never sees the outside.

Each direction holds at most one read's worth of bytes and reads no more until they are gone, so a slow end slows the
other. Must never look into the bytes. Runs on the daemon's event loop; started by `server`.

Callbacks on readiness, and no asyncio transports: measured on a no-op call they add the least (about 0.1-0.2 ms, of
transports 0.25; a thread of its own or splice(2) gain nothing).
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from sandboxd.rpc.peer import Peers, bind_name
from sandboxd.rpc.seldom import Seldom
from sandboxd.rpc.share import Shares

_log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
_ACCEPTS_AT_ONCE = 16
_REFUSED_AT_ONCE = 8  # connections of strangers that are kept only to tell them so
_RETRY_SECONDS = 0.2
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Direction:
    """Bytes from one socket to another."""

    __slots__ = ("_close", "_loop", "_on_first", "_pending", "_source", "_target")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        target: socket.socket,
        close: Callable[[], None],
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._on_first = on_first
        self._source = source
        self._target = target
        self._close = close
        self._pending = memoryview(b"")
        loop.add_reader(source, self._readable)

    def _readable(self) -> None:
        try:
            data = self._source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        if self._on_first is not None:
            self._on_first()
            self._on_first = None
        try:
            sent = self._target.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        if sent < len(data):
            self._pending = memoryview(data)[sent:]
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._target, self._writable)

    def _writable(self) -> None:
        try:
            sent = self._target.send(self._pending)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._pending = self._pending[sent:]
        if not self._pending:
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._readable)


class Relay:
    """Accepts on `listening` and connects on to `inner`. `max_connections` bounds descriptors and buffers.

    Each uid has its share of them. When they are used up, the oldest connection that has not said anything yet makes
    room, if it is the caller's own or of a uid that has more than its part: a client speaks at once.
    """

    def __init__(self, listening: socket.socket, inner: Path, peers: Peers, max_connections: int) -> None:
        self._listening = listening
        self._inner = os.fspath(inner)
        self._peers = peers
        self._shares = Shares(max_connections, peers.allowed)
        self._loop = asyncio.get_running_loop()
        self._seldom = Seldom(_log, self._loop.time)
        self._connections: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._refused: set[str] = set()
        self._callers: dict[str, int] = {}  # the uid of each connection that is not refused
        self._silent: dict[str, None] = {}  # oldest first
        self._accepting = False
        self.dropped = 0  # connections that there was no room for
        self._start()

    @property
    def connections(self) -> int:
        """Living ones, those of strangers too."""
        return len(self._connections)

    def close_listener(self) -> None:
        """Accept no more; connections that live go on."""
        if self._accepting:
            self._loop.remove_reader(self._listening)
            self._accepting = False
        self._listening.close()

    def close(self) -> None:
        """End everything."""
        self.close_listener()
        for name in tuple(self._connections):
            self._end(name)

    def _start(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._acceptable)
            self._accepting = True

    def _acceptable(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                outer, _address = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                # The queue stays readable: without a pause the loop would spin on it.
                _log.warning("cannot accept connections", extra={"errno": error.errno})
                self._loop.remove_reader(self._listening)
                self._accepting = False
                self._loop.call_later(_RETRY_SECONDS, self._start)
                return
            self._connect_on(outer)

    def _connect_on(self, outer: socket.socket) -> None:
        outer.setblocking(False)
        name, peer = self._peers.admit(outer)
        room = self._has_room(peer.uid) if peer.allowed else len(self._refused) < _REFUSED_AT_ONCE
        if not room:
            self._seldom.warning("connection dropped", extra={"peer_uid": peer.uid, "full": peer.allowed})
            self.dropped += 1
            self._peers.forget(name)
            outer.close()
            return
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            bind_name(inner, name)
            inner.connect(self._inner)
        except OSError as error:
            self._seldom.warning("connection dropped", extra={"peer_uid": peer.uid, "errno": error.errno})
            self._peers.forget(name)
            inner.close()
            outer.close()
            return
        self._connections[name] = (outer, inner)
        if not peer.allowed:
            self._seldom.warning("connection of a stranger", extra={"peer_uid": peer.uid, "peer_pid": peer.pid})
            self._refused.add(name)
        else:
            self._silent[name] = None
            self._callers[name] = peer.uid
            self._shares.take(peer.uid)

        def close() -> None:
            self._end(name)

        def spoke() -> None:
            self._silent.pop(name, None)

        _Direction(self._loop, outer, inner, close, spoke)
        _Direction(self._loop, inner, outer, close)

    def _has_room(self, uid: int) -> bool:
        if self._shares.fits(uid):
            return True
        for name in self._silent:
            owner = self._callers[name]
            if owner == uid or self._shares.over(owner):
                self._end(name)
                break
        return self._shares.fits(uid)

    def _end(self, name: str) -> None:
        for end in self._connections.pop(name, ()):
            self._loop.remove_reader(end)
            self._loop.remove_writer(end)
            end.close()
        self._refused.discard(name)
        self._silent.pop(name, None)
        if (uid := self._callers.pop(name, None)) is not None:
            self._shares.give_back(uid)
        self._peers.forget(name)
