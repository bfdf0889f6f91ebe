"""Packs a workspace for whoever looks into an incident: a tar of its regular files, and a list of all that is there.

The tree is hostile and may change meanwhile: every open is openat2 from a held descriptor, beneath it, through no link,
non-blocking. No name leaves as it was: each byte that is no plain character is written as %XX, so that a member can
name nothing outside of where it is unpacked. Runs in the child that `examine` makes, inside the sandbox's mounts.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandboxd.spawner import sys

MAX_DEPTH = 64
MAX_ENTRIES = 20_000
MAX_NAME_CHARS = 8 << 20  # of all paths and targets together: a deep one can have 50 000
TOP = "workspace"
_BLOCK = 512
_PIECE_BYTES = 64 * 1024
_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_MAGICLINKS
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+=,@~^ ")
_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "link"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
)

Entry = dict[str, str | int]


@dataclass(slots=True)
class Packer:
    """`write` takes the pieces of the archive, in their order. `entries` is the list, once `pack` is through."""

    write: Callable[[bytes], None]
    bytes_left: int
    entries: list[Entry] = field(default_factory=list)
    complete: bool = True
    name_chars_left: int = MAX_NAME_CHARS

    def pack(self, directory: int) -> None:
        """Takes the descriptor over."""
        self._visit(directory, TOP, 0)
        self.write(bytes(2 * _BLOCK))

    def _visit(self, directory: int, above: str, depth: int) -> None:
        try:
            for name in _names(directory, MAX_ENTRIES - len(self.entries)):
                path = f"{above}/{escaped(os.fsencode(name))}"
                if len(self.entries) >= MAX_ENTRIES or not self._affords(path):
                    self.complete = False
                    return
                self._look_at(directory, name, path, depth)
        finally:
            os.close(directory)

    def _look_at(self, directory: int, name: str, path: str, depth: int) -> None:
        entry: Entry = {"path": path}
        self.entries.append(entry)
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            entry |= _described(found)
            if stat.S_ISLNK(found.st_mode):
                target = escaped(os.fsencode(os.readlink(name, dir_fd=directory)))
                if not self._affords(target):
                    self._leave_out(entry, "over what names may take")
                    return
                entry["target"] = target
            elif stat.S_ISREG(found.st_mode):
                self._add(sys.openat2(directory, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, 0, _BENEATH), entry)
            elif stat.S_ISDIR(found.st_mode):
                if depth >= MAX_DEPTH:
                    self._leave_out(entry, "too deep")
                    return
                below = sys.openat2(directory, name, os.O_RDONLY | os.O_DIRECTORY, 0, _BENEATH)
                self.write(header(f"{path}/".encode(), 0, 0o755, int(found.st_mtime), b"5"))
                self._visit(below, path, depth + 1)
        except OSError as error:
            self._leave_out(entry, error.strerror or "unreadable")

    def _add(self, fd: int, entry: Entry) -> None:
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                self._leave_out(entry, "it changes its kind")
                return
            if found.st_size > self.bytes_left:
                self._leave_out(entry, "over the bytes that may be taken")
                return
            self.bytes_left -= found.st_size
            self.write(header(str(entry["path"]).encode(), found.st_size, 0o644, int(found.st_mtime), b"0"))
            for piece in _content(fd, found.st_size):
                self.write(piece)
            self.write(bytes(-found.st_size % _BLOCK))
        finally:
            os.close(fd)

    def _affords(self, text: str) -> bool:
        if len(text) > self.name_chars_left:
            return False
        self.name_chars_left -= len(text)
        return True

    def _leave_out(self, entry: Entry, why: str) -> None:
        entry["left_out"] = why
        self.complete = False


def escaped(name: bytes) -> str:
    """One component or a link's target, readable and without any character that means something to somebody."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in name)


def header(name: bytes, size: int, mode: int, mtime: int, kind: bytes) -> bytes:
    """POSIX ustar; a name of more than 100 bytes comes before it as GNU tar has it."""
    if len(name) > 100:
        whole = name + b"\0"
        return (
            header(b"././@LongLink", len(whole), 0, 0, b"L")
            + whole
            + bytes(-len(whole) % _BLOCK)
            + header(name[:100], size, mode, mtime, kind)
        )
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, max(0, mtime) & 0o77777777777)
    block = name.ljust(100, b"\0") + numbers + b" " * 8 + kind + bytes(100) + b"ustar\00000"
    block = block.ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _names(directory: int, most: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for _, entry in zip(range(most + 1), entries, strict=False))


def _described(found: os.stat_result) -> Entry:
    kind = next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "device")
    return {
        "kind": kind,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "size": found.st_size,
        "mtime": found.st_mtime_ns,
        "uid": found.st_uid,
        "links": found.st_nlink,
    }


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly so many bytes, whatever becomes of the file: none beyond, zeros for what is gone."""
    offset = 0
    while offset < size:
        piece = os.pread(fd, min(_PIECE_BYTES, size - offset), offset) or bytes(min(_PIECE_BYTES, size - offset))
        offset += len(piece)
        yield piece
