"""The files of a journal: names, order, opening without following links, and reading whole lines out of them.

Never writes a record. A segment is named by the sequence number of its first record. Called by `audit.journal` and
`audit.cursor`.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(\d{20})\.jsonl", re.ASCII)
LONGEST_LINE_BYTES = 16 << 20  # no event comes near it
_BLOCK = 1 << 20
_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600


@dataclass(frozen=True, slots=True)
class Segment:
    path: Path
    first_seq: int


def segment_name(first_seq: int) -> str:
    return f"{first_seq:020d}.jsonl"


def segments(directory: Path) -> list[Segment]:
    """Oldest first. OSError if the directory cannot be read."""
    found = ((_NAME.fullmatch(name), name) for name in sorted(path.name for path in directory.iterdir()))
    return [Segment(directory / name, int(match[1])) for match, name in found if match]


def private_directory(path: Path) -> int:
    """An open descriptor of that directory, made if it is not there; PermissionError unless it is ours alone."""
    path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(
            errno.EPERM, f"it belongs to uid {status.st_uid}; give it to uid {os.geteuid()}", str(path)
        )
    if stat.S_IMODE(status.st_mode) != _PRIVATE_DIRECTORY:
        os.fchmod(descriptor, _PRIVATE_DIRECTORY)
    return descriptor


def open_private(directory: int, name: str, flags: int) -> int:
    """Open `name` in that directory with these and the flags that no file of ours goes without."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(name, flags, _PRIVATE_FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "it is not a regular file", name)
    return descriptor


def lines(descriptor: int, offset: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Offset and content (without newline) of each whole line; a last line without newline is left out.

    It also ends where no line of ours can go on: LONGEST_LINE_BYTES without a newline.
    """
    rest = b""
    while len(rest) < LONGEST_LINE_BYTES and (end is None or offset + len(rest) < end):
        position = offset + len(rest)
        block = os.pread(descriptor, _BLOCK if end is None else min(_BLOCK, end - position), position)
        if not block:
            return
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield offset, line
            offset += len(line) + 1
