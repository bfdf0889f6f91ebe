"""Taking a place for a unix socket in the file system: its directory, its lock, and what an earlier daemon left there.

Must never follow or remove what is not ours: a directory that others can write, a symlink, or a socket on which
somebody still listens is refused. Used by whoever listens at a path; `key` is what names the place in the
configuration.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from sandboxd.errors import ConfigInvalid


def own_directory(directory: Path, mode: int, key: str, *, shared: bool = False) -> int:
    """Descriptor of the directory, made if missing, and proved to be writable by nobody else. It gets that mode.

    `shared`: others of the daemon listen there as well, and one that is there keeps the mode that it has.
    """
    made = False
    with contextlib.suppress(FileExistsError):
        try:
            directory.mkdir(mode=0o700)
            made = True
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            raise ConfigInvalid(
                f"cannot make the socket's directory {str(directory)!r}: {error.strerror}; make it or set {key}"
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
    if made or not shared:
        os.fchmod(descriptor, mode)
    return descriptor


def locked(directory: int, path: Path, key: str) -> int:
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
        raise _taken(path, key) from error
    return lock


def clear_stale(directory: int, path: Path, key: str) -> None:
    """Remove the socket of a daemon that is gone; `directory` is a descriptor of where it lies."""
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigInvalid(f"{str(path)!r} exists and is not a socket; remove it or set {key}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        refused = probe.connect_ex(os.fspath(path))
    if refused != errno.ECONNREFUSED:
        raise _taken(path, key)
    os.unlink(path.name, dir_fd=directory)


def own_inner_directory(directory: int, name: str, stale: str, path: Path) -> None:
    """A directory beside the socket that only this uid enters, without the socket `stale` that may lie in it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory)
    try:
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise ConfigInvalid(
            f"{str(path.parent / name)!r} is not a directory that can be opened: {error.strerror}; remove it"
        ) from error
    try:
        if os.fstat(inner).st_uid != os.geteuid():
            raise ConfigInvalid(f"{str(path.parent / name)!r} belongs to another user; remove it")
        os.fchmod(inner, 0o700)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stale, dir_fd=inner)
    finally:
        os.close(inner)


def _taken(path: Path, key: str) -> ConfigInvalid:
    return ConfigInvalid(f"another daemon serves {str(path)!r}; stop it or set {key}", reason="socket_in_use")
