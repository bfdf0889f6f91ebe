"""The daemon's unix socket in the file system: its directory, its lock, and what an earlier daemon left there.

Must never follow or remove what is not ours: a directory that others can write, a symlink, or a socket on which
somebody still listens is refused. Called by `server` before anything is served.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from sandboxd.errors import ConfigInvalid
from sandboxd.listening import PATH_MAX

BACKLOG = 4096  # what the kernel allows at most by default; a full queue would refuse honest callers too
INNER_DIRECTORY = "inner"
INNER_SOCKET = "grpc"


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
            self._directory = _own_directory(path.parent, 0o711 if open_to_others else 0o700)
            undo.callback(os.close, self._directory)
            self._lock = _locked(self._directory, path)
            undo.callback(os.close, self._lock)
            clear_stale(self._directory, path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            undo.callback(self.socket.close)
            _own_inner_directory(self._directory, path)
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


def _own_directory(directory: Path, mode: int) -> int:
    """Descriptor of the directory, made if missing, and proved to be writable by nobody else."""
    with contextlib.suppress(FileExistsError):
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            raise ConfigInvalid(
                f"cannot make the socket's directory {str(directory)!r}: {error.strerror}; make it or set listen"
            ) from error
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigInvalid(
            f"the socket's directory {str(directory)!r} is not a directory that can be opened: {error.strerror}"
        ) from error
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        os.close(descriptor)
        raise ConfigInvalid(
            f"the socket's directory {str(directory)!r} belongs to uid {found.st_uid}; it must belong to"
            f" uid {os.geteuid()} and to this daemon alone"
        )
    if stat.S_IMODE(found.st_mode) & 0o022:
        os.close(descriptor)
        raise ConfigInvalid(
            f"the socket's directory {str(directory)!r} can be written by others (mode"
            f" {stat.S_IMODE(found.st_mode):04o}); choose one that is the daemon's alone"
        )
    os.fchmod(descriptor, mode)
    return descriptor


def _locked(directory: int, path: Path) -> int:
    """Descriptor of the lock file, locked; it is released by the kernel however this process ends."""
    try:
        lock = os.open(
            f"{path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
        )
    except OSError as error:
        raise ConfigInvalid(f"cannot open the lock file {str(path)!r}.lock: {error.strerror}; remove it") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise _taken(path) from error
    return lock


def clear_stale(directory: int, path: Path) -> None:
    """Remove the socket of a daemon that is gone; `directory` is a descriptor of where it lies."""
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigInvalid(f"{str(path)!r} exists and is not a socket; remove it or set listen")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        refused = probe.connect_ex(os.fspath(path))
    if refused != errno.ECONNREFUSED:
        raise _taken(path)
    os.unlink(path.name, dir_fd=directory)


def _own_inner_directory(directory: int, path: Path) -> None:
    """A directory that only this uid enters: whoever reaches the inner socket would not pass the relay."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(INNER_DIRECTORY, 0o700, dir_fd=directory)
    try:
        inner = os.open(INNER_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise ConfigInvalid(
            f"{str(path.parent / INNER_DIRECTORY)!r} is not a directory that can be opened: {error.strerror}; remove it"
        ) from error
    try:
        if os.fstat(inner).st_uid != os.geteuid():
            raise ConfigInvalid(f"{str(path.parent / INNER_DIRECTORY)!r} belongs to another user; remove it")
        os.fchmod(inner, 0o700)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(INNER_SOCKET, dir_fd=inner)
    finally:
        os.close(inner)


def _taken(path: Path) -> ConfigInvalid:
    return ConfigInvalid(f"another daemon serves {str(path)!r}; stop it or set listen", reason="socket_in_use")
