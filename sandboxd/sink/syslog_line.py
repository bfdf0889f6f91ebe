"""The ways to a syslog receiver: datagrams on a unix socket, and streams, unix, TCP or TLS.

No stream acknowledges anything, so each batch has a connection of its own, and it counts as taken once the receiver,
told that nothing more comes, has closed its end in good order: by then it has read all. Blocks, for as long as its
timeout at most. Used by the sink `syslog`.
"""

import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sandboxd.sink.syslog_message import LEAST_BYTES, counted

_LOOK_SECONDS = 0.01


class Line(Protocol):
    """`send` returns once the receiver has all of them; OSError if not."""

    def send(self, messages: Sequence[Callable[[int], bytes]]) -> None:
        """Each is a function that makes a message of so many bytes at most."""

    def close(self) -> None: ...


class DatagramLine:
    """A message each. A datagram is in the receiver's queue when it is sent; what it does with that it does not say."""

    def __init__(self, path: str, most_bytes: int, timeout_seconds: float) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._timeout_seconds = timeout_seconds
        self._socket: socket.socket | None = None

    def send(self, messages: Sequence[Callable[[int], bytes]]) -> None:
        try:
            if self._socket is None:
                self._socket = self._connected()
            for message in messages:
                self._send_one(self._socket, message)
        except OSError:
            self.close()  # whoever comes next has another socket at that path
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(self._timeout_seconds)  # a receiver that does not read makes it wait
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        return made

    def _send_one(self, to: socket.socket, message: Callable[[int], bytes]) -> None:
        most_bytes = self._most_bytes
        while True:
            try:
                to.send(message(most_bytes))
            except OSError as error:
                if error.errno != errno.EMSGSIZE or most_bytes <= LEAST_BYTES:
                    raise
                most_bytes = max(LEAST_BYTES, most_bytes // 2)
            else:
                return


class StreamLine:
    """`connect` makes the connection, `confirm` waits until all was read."""

    def __init__(
        self,
        connect: Callable[[float], socket.socket],
        confirm: Callable[[socket.socket, float], None],
        most_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._connect = connect
        self._confirm = confirm
        self._most_bytes = most_bytes
        self._timeout_seconds = timeout_seconds

    def send(self, messages: Sequence[Callable[[int], bytes]]) -> None:
        data = b"".join(counted(message(self._most_bytes)) for message in messages)
        deadline = time.monotonic() + self._timeout_seconds
        with self._connect(self._timeout_seconds) as connection:
            if data:
                connection.settimeout(_left(deadline))
                connection.sendall(data)
                self._confirm(connection, deadline)

    def close(self) -> None:
        """Nothing stays open."""


def unix_stream(path: str) -> Callable[[float], socket.socket]:
    def connect(timeout_seconds: float) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(timeout_seconds)
            made.connect(path)
        except OSError:
            made.close()
            raise
        return made

    return connect


def tcp(host: str, port: int) -> Callable[[float], socket.socket]:
    return lambda timeout_seconds: socket.create_connection((host, port), timeout_seconds)


def tls(host: str, port: int, context: ssl.SSLContext) -> Callable[[float], socket.socket]:
    context.options &= ~ssl.Options.OP_IGNORE_UNEXPECTED_EOF  # Python's own default takes any end for a signed one

    def connect(timeout_seconds: float) -> socket.socket:
        plain = socket.create_connection((host, port), timeout_seconds)
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    return connect


def confirm(connection: socket.socket, deadline: float) -> None:
    """Say that nothing more comes, and wait until the receiver has read all and says the same."""
    connection.settimeout(_left(deadline))
    connection.shutdown(socket.SHUT_WR)
    if connection.recv(1):
        raise ConnectionError(errno.EPROTO, "it answers, which no syslog receiver does; see what listens there")
    while _unacknowledged(connection) and not _broken(connection):
        time.sleep(min(_LOOK_SECONDS, _left(deadline)))
    if error := _broken(connection):
        raise ConnectionError(error, "it closed before it had read all")


def confirm_tls(connection: socket.socket, deadline: float, *, signed_end: bool) -> None:
    """As `confirm`. Whoever is in between can end a connection, but not say so in the receiver's name."""
    if not isinstance(connection, ssl.SSLSocket):
        raise TypeError("it is no TLS connection")
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        connection.settimeout(_left(deadline))
        try:
            connection.unwrap()
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLEOFError) and error.reason != "UNEXPECTED_EOF_WHILE_READING":
                raise
            if signed_end:
                raise ConnectionError(
                    errno.EPROTO, "it ended the connection without TLS's close_notify, so whether it read all is open"
                ) from error
        confirm(below, deadline)


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that its machine has not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0])


def _broken(connection: socket.socket) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it did not take all in time")
    return left
