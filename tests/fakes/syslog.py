"""Syslog receivers on loopback, for what no real one does: they break off, do not read, or talk back."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: closing sends RST


@dataclass
class Receiver:
    """What it has read, by connection. `behave` is given each new one with its number, and reads from it."""

    behave: Callable[["Receiver", socket.socket, int], None]
    port: int = 0
    read: list[bytes] = field(default_factory=list)

    @property
    def messages(self) -> list[bytes]:
        """Of all connections that were read to their end."""
        return [message for data in self.read for message in split(data)]


def split(data: bytes) -> Iterator[bytes]:
    """RFC 6587, 3.4.1. What is not whole is left out."""
    while b" " in data:
        length, _, rest = data.partition(b" ")
        if len(rest) < int(length):
            return
        yield rest[: int(length)]
        data = rest[int(length) :]


def read_all(receiver: Receiver, connection: socket.socket, number: int) -> None:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    receiver.read.append(b"".join(parts))


@contextmanager
def receiving(
    behave: Callable[[Receiver, socket.socket, int], None] = read_all,
    *,
    path: Path | None = None,
    tls: ssl.SSLContext | None = None,
    close_notify: bool = True,
) -> Iterator[Receiver]:
    family = socket.AF_INET if path is None else socket.AF_UNIX
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0) if path is None else str(path))
    listener.listen()
    receiver = Receiver(behave, 0 if path else listener.getsockname()[1])

    def serve() -> None:
        for number in range(1 << 30):
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with plain, suppress(OSError):
                plain.settimeout(20)
                if tls is None:
                    receiver.behave(receiver, plain, number)
                else:
                    with tls.wrap_socket(plain, server_side=True) as connection:
                        receiver.behave(receiver, connection, number)
                        if close_notify:
                            connection.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)
