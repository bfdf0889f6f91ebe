"""The daemon's unix socket in the file system, and a private place beside it for the server behind the relay.

Must never take a place that is not ours: `host.socket_place` refuses it. Called by `server` before anything is served.
"""

import contextlib
import os
import socket
from pathlib import Path

from sandboxd.errors import ConfigInvalid
from sandboxd.host.socket_place import clear_stale, locked, own_directory, own_inner_directory
from sandboxd.listening import PATH_MAX

BACKLOG = 4096  # what the kernel allows at most by default; a full queue would refuse honest callers too
INNER_DIRECTORY = "inner"
INNER_SOCKET = "grpc"
_KEY = "listen"


class Listener:
    """A bound, listening socket at `path` and a private place beside it for the server behind the relay."""

    def __init__(self, path: Path, *, open_to_others: bool) -> None:
        """Take the place, or `ConfigInvalid`. `open_to_others`: uids beside our own and root may connect."""
        self.path = path
        self._closed = False
        self.inner_path = path.parent / INNER_DIRECTORY / INNER_SOCKET
        if len(os.fsencode(self.inner_path)) > PATH_MAX or len(os.fsencode(path)) > PATH_MAX:
            raise ConfigInvalid(f"socket path {str(path)!r} is too long; {PATH_MAX} bytes are the most")
        with contextlib.ExitStack() as undo:
            self._directory = own_directory(path.parent, 0o711 if open_to_others else 0o700, _KEY)
            undo.callback(os.close, self._directory)
            self._lock = locked(self._directory, path, _KEY)
            undo.callback(os.close, self._lock)
            clear_stale(self._directory, path, _KEY)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            undo.callback(self.socket.close)
            own_inner_directory(self._directory, INNER_DIRECTORY, INNER_SOCKET, path)
            self.socket.bind(os.fspath(path))
            # Until listen(2) nobody can connect, so there is no moment with a wider mode.
            path.chmod(0o666 if open_to_others else 0o600)
            self.socket.listen(BACKLOG)
            undo.pop_all()

    def close(self) -> None:
        """Stop listening and remove the sockets. The lock file stays: removing it would let two daemons in.

        Idempotent.
        """
        if self._closed:
            return
        self._closed = True
        self.socket.close()
        for name in (self.path.name, f"{INNER_DIRECTORY}/{INNER_SOCKET}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
        with contextlib.suppress(OSError):
            os.rmdir(INNER_DIRECTORY, dir_fd=self._directory)
        os.close(self._lock)
        os.close(self._directory)
