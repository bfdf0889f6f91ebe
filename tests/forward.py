"""Carries connections from one unix socket to another, as whoever runs it: `python -m tests.forward LISTEN TARGET`.

A rootless daemon serves its own user only, and sees the root that runs the tests as nobody in particular. This program
is that user; a slow end still slows the other. Started by `tests.daemon`, ended with its standard input.
"""

import contextlib
import socket
import sys
import threading

from sandboxd.rpc.listener import BACKLOG

CHUNK_BYTES = 64 * 1024


def carry(source: socket.socket, target: socket.socket) -> None:
    """One direction of a connection, until its source ends or either side is gone."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve(listening: socket.socket, target: str) -> None:
    while True:
        outer, _ = listening.accept()
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            inner.connect(target)
        except OSError:
            outer.close()
            inner.close()
            continue
        for source, sink in ((outer, inner), (inner, outer)):
            threading.Thread(target=carry, args=(source, sink), daemon=True).start()


def main() -> None:
    listen, target = sys.argv[1:]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(listen)
    listening.listen(BACKLOG)  # the daemon's own: a client must not be refused for what stands before it
    threading.Thread(target=serve, args=(listening, target), daemon=True).start()
    sys.stdin.buffer.read()  # its end is ours


if __name__ == "__main__":
    main()
