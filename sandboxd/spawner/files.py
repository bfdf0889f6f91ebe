"""The file API's inside half: init writes and opens workspace files for the daemon, as the sandbox's own user.

Runs in init, within the sandbox's mount namespace; the tree may be hostile, so every open is openat2 from a held
descriptor, beneath it, through no link, non-blocking, and only regular files come out.
"""

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sandboxd.spawner import sys
from sandboxd.spawner.template import WORKSPACE

MAX_DEPTH = 64
MAX_ENTRIES = 20_000
_MAX_SKIPPED = 100
_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True)
class Opened:
    """A regular file, open read-only."""

    path: str
    fd: int
    size: int
    mode: int


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """File access with that user's rights inside the block: init's own never touch the tree."""
    own = os.geteuid(), os.getegid()
    sys.set_fs_ids(uid, uid)
    try:
        yield
    finally:
        sys.set_fs_ids(*own)


def put(path: str, mode: int, content_fd: int, uid: int) -> None:
    """Write a new file, with the directories above it; OSError with the path (EEXIST if it is there already)."""
    parts = _parts(path)
    with as_user(uid):
        directory = os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                above, directory = directory, _descend(directory, part)
                os.close(above)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK
            fd = sys.openat2(directory, parts[-1], flags, mode & 0o755, _BENEATH)
        finally:
            os.close(directory)
        try:
            _copy(content_fd, fd)
        finally:
            os.close(fd)


def collect(patterns: tuple[str, ...], max_files: int, max_bytes: int, uid: int) -> "Collection":
    """Walk the workspace for matches; at most MAX_ENTRIES entries and MAX_DEPTH levels are looked at."""
    walk = Collection(tuple(tuple(_parts(pattern)) for pattern in patterns), max_files, max_bytes)
    with as_user(uid):
        root = os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        walk.visit(root, ())
    return walk


class Collection:
    """One walk: `opened` files in order of their names, `skipped` ones with the reason."""

    def __init__(self, patterns: tuple[tuple[str, ...], ...], max_files: int, max_bytes: int) -> None:
        self.opened: list[Opened] = []
        self.skipped: list[tuple[str, str]] = []
        self.limit_reached = False
        self._patterns = patterns
        self._max_files = max_files
        self._bytes_left = max_bytes
        self._entries_left = MAX_ENTRIES

    def visit(self, directory: int, above: tuple[str, ...]) -> None:
        """Takes over `directory` and closes it."""
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for _, entry in zip(range(self._entries_left + 1), entries, strict=False))
            for name in names:
                self._entries_left -= 1
                if self._entries_left < 0:
                    self._skip("/".join(above), "the workspace has too many entries")
                    self.limit_reached = True
                    return
                self._consider(directory, (*above, name))
        finally:
            os.close(directory)

    def _consider(self, directory: int, path: tuple[str, ...]) -> None:
        text = "/".join(path)
        matched = any(_matches(pattern, path) for pattern in self._patterns)
        try:
            mode = os.stat(path[-1], dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                if any(_leads_to(pattern, path) for pattern in self._patterns):
                    if len(path) >= MAX_DEPTH:
                        self._skip(text, "too deep")
                        return
                    self.visit(sys.openat2(directory, path[-1], os.O_RDONLY | os.O_DIRECTORY, 0, _BENEATH), path)
                return
            if not matched:
                return
            if not stat.S_ISREG(mode):
                self._skip(text, "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file")
                return
            self._open(directory, path[-1], text)
        except OSError as error:
            self._skip(text, error.strerror or str(error))

    def _open(self, directory: int, name: str, text: str) -> None:
        if not _is_utf8(text):
            self._skip(text, "its name is not UTF-8")
            return
        if len(self.opened) >= self._max_files:
            self.limit_reached = True
            self._skip(text, "over the number of files that may be collected")
            return
        fd = sys.openat2(directory, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, 0, _BENEATH)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > self._bytes_left:
            os.close(fd)
            if stat.S_ISREG(status.st_mode):
                self.limit_reached = True
            reason = "over the bytes that may be collected" if stat.S_ISREG(status.st_mode) else "not a regular file"
            self._skip(text, reason)
            return
        self._bytes_left -= status.st_size
        self.opened.append(Opened(text, fd, status.st_size, stat.S_IMODE(status.st_mode)))

    def _skip(self, text: str, reason: str) -> None:
        if len(self.skipped) < _MAX_SKIPPED:
            self.skipped.append((text.encode(errors="backslashreplace").decode(), reason))


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Shell globs by component; `**` stands for any number of directories; a leading dot must be written out."""
    reachable = {0}
    for component in path:
        reachable = _advance(pattern, _skip_stars(pattern, reachable), component)
    return len(pattern) in _skip_stars(pattern, reachable)


def _leads_to(pattern: tuple[str, ...], directory: tuple[str, ...]) -> bool:
    reachable = {0}
    for component in directory:
        reachable = _advance(pattern, _skip_stars(pattern, reachable), component)
    return any(state < len(pattern) for state in reachable)


def _skip_stars(pattern: tuple[str, ...], states: set[int]) -> set[int]:
    result = set(states)
    for state in states:
        while state < len(pattern) and pattern[state] == "**":
            state += 1
            result.add(state)
    return result


def _advance(pattern: tuple[str, ...], states: set[int], component: str) -> set[int]:
    result = set()
    for state in states:
        if state == len(pattern):
            continue
        expected = pattern[state]
        hidden = component.startswith(".") and not expected.startswith(".")
        if expected == "**":
            if not hidden:
                result.add(state)
        elif not hidden and fnmatch.fnmatchcase(component, expected):
            result.add(state + 1)
    return result


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    plain = not any(part in ("", ".", "..") or "\0" in part for part in parts) and len(parts) <= MAX_DEPTH
    if not plain or not _is_utf8(path):
        raise OSError(errno.EINVAL, "not a relative path below the workspace", path)
    return parts


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _descend(directory: int, part: str) -> int:
    """Open a directory below, made if it is missing."""
    with suppress(FileExistsError):
        os.mkdir(part, 0o755, dir_fd=directory)
    return sys.openat2(directory, part, os.O_RDONLY | os.O_DIRECTORY, 0, _BENEATH)


def _copy(source: int, target: int) -> None:
    offset = 0
    while piece := os.pread(source, 1 << 20, offset):
        offset += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
