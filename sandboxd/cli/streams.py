"""Our own standard streams as bytes, and signals. No buffering: what the program wrote is out at once.

Used by `sandboxctl run` alone.
"""

import os
import select
import signal
from types import FrameType

from sandboxd.cli.mistake import Mistake

# A request is one message of 16 MiB at most; this leaves room for the rest of it.
MAX_STDIN_BYTES = 15 * 1024 * 1024
STDIN, STDOUT, STDERR = 0, 1, 2


def exit_on_signals() -> None:
    """From here on SIGINT and SIGTERM end this process at once, wherever it stands.

    Our end closes the connection, and that kills what we run. An exception would come up in the middle of grpc.
    A signal that was ignored from the start, as in a background job, stays so.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        os._exit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, leave)


def write(fd: int, data: bytes) -> None:
    """All of it, also where the other end shares a non-blocking description; `BrokenPipeError` if nobody reads."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def read_stdin() -> bytes:
    """Our standard input to its end, or nothing if it is a terminal or closed."""
    try:
        if os.isatty(STDIN):
            return b""
        return _read_all()
    except OSError as error:
        raise Mistake(f"cannot read stdin: {error.strerror}; redirect it from /dev/null") from error


def read_source() -> str:
    """Source text from standard input, a terminal included."""
    try:
        return _read_all().decode()
    except UnicodeDecodeError as error:
        raise Mistake(f"the source on stdin is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _read_all() -> bytes:
    data = bytearray()
    while piece := os.read(STDIN, 1 << 16):
        data += piece
        if len(data) > MAX_STDIN_BYTES:
            raise Mistake(
                f"stdin is over {MAX_STDIN_BYTES} bytes, the most a request carries; pass less, or use --file"
            )
    return bytes(data)
