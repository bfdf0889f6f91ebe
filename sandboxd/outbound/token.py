"""A bearer token from a file that somebody else renews. Never logged, never part of an error. Used by whoever sends."""

import os
import stat

MAX_TOKEN_BYTES = 64 * 1024


class TokenUnreadable(Exception):
    """Says what is wrong with the file, never what is in it."""


class TokenFile:
    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._token = ""

    def token(self) -> str:
        """What the file holds now: it is looked at each time, and read when it has changed."""
        try:
            seen = _identity(os.stat(self._path))  # noqa: PTH116  a string: this is on the way of every decision
            if seen != self._seen:
                self._token = _read(self._path)
                self._seen = seen
        except OSError as error:
            raise TokenUnreadable(f"the token file cannot be read: {error.strerror}") from error
        return self._token


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TokenUnreadable("the token file is not a regular file")
        content = file.read(MAX_TOKEN_BYTES + 1)
    if len(content) > MAX_TOKEN_BYTES:
        raise TokenUnreadable(f"the token file is over {MAX_TOKEN_BYTES} bytes")
    token = content.strip()
    if not token or any(byte <= 0x20 or byte >= 0x7F for byte in token):
        raise TokenUnreadable("the token file does not hold one word of printable ASCII")
    return token.decode()
