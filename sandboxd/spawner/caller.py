"""What a program wants to become, read from the memory of the process that calls execve(2) or execveat(2).

Copies each byte once and within bounds, and judges by the copy alone; a place that cannot be read is a refusal. The
tenant can change the memory afterwards, and the process may be another's already: `mediation` asks the kernel about the
latter, and no answer is built on the former not happening. Never opens what it names. Called by `mediation`, in init.
"""

import errno
import os
import re
import struct
from dataclasses import dataclass

from sandboxd.spawner import sys
from sandboxd.spawner.listener import Notification

MOST_PATH_BYTES = 4096  # PATH_MAX, with its NUL
MOST_ARGUMENTS = 4096  # as many as a request may have: policy takes longer for each
MOST_ARGUMENT_BYTES = 256 * 1024
_PAGE = 4096
_POINTER = 8
_STATUS_BYTES = 4096
_MOST_LINKS = 40  # as the kernel's own MAXSYMLINKS
_MOST_STEPS = 1024
_MAGIC = re.compile(rb"/proc/[0-9]+/(?:task/[0-9]+/)?(?:exe|cwd|root|fd/[0-9]+|map_files/[^/]+)")


class Unreadable(Exception):
    """It cannot be told what would run; the call fails with `number`. `reason` is empty where nothing could have."""

    def __init__(self, number: int, reason: str = "") -> None:
        super().__init__(os.strerror(number))
        self.number = number
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Caller:
    """The question. `image` is where the path led when it was looked at, through every link."""

    pid: int
    parent_pid: int
    image: str
    argv: tuple[str, ...]
    cwd: str


class Process:
    """A thread of the sandbox, held by its memory file: it may end, but nobody else's memory comes in its place."""

    def __init__(self, thread: int) -> None:
        self.thread = thread
        try:
            self._memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:  # it has gone, or made itself undumpable where it has our own uid; or no descriptors
            raise Unreadable(errno.EACCES, "unreadable") from error
        self._page_at = -1
        self._page = b""

    def close(self) -> None:
        os.close(self._memory)

    def reads(self, notification: Notification) -> Caller:
        """`Unreadable` if any of it cannot be had."""
        pid, parent = _ids(self.thread)
        args = notification.args
        if notification.number == sys.EXECVE:
            directory, (path_at, argv_at), flags = sys.AT_FDCWD, args[:2], 0
        else:
            directory, path_at, argv_at, flags = _signed(args[0]), args[1], args[2], args[4]
        path = self._string(path_at, MOST_PATH_BYTES, errno.ENAMETOOLONG)
        cwd = self._link("cwd")
        image = self._image(pid, directory, path, flags, cwd)
        return Caller(pid, parent, _text(image), self._arguments(argv_at), _text(cwd))

    # --- memory

    def _arguments(self, at: int) -> tuple[str, ...]:
        if at == 0:
            return ()  # Linux takes it for an empty list
        found: list[str] = []
        room = MOST_ARGUMENT_BYTES
        while (pointer := self._pointer(at)) != 0:
            if len(found) == MOST_ARGUMENTS:
                raise Unreadable(errno.E2BIG, "too_large")
            word = self._string(pointer, room, errno.E2BIG)
            room -= len(word) + 1
            found.append(_text(word))
            at += _POINTER
        return tuple(found)

    def _pointer(self, at: int) -> int:
        packed = b""
        while len(packed) < _POINTER:
            packed += self._piece(at + len(packed))[: _POINTER - len(packed)]
        value: int = struct.unpack("=Q", packed)[0]
        return value

    def _string(self, at: int, most: int, beyond: int) -> bytes:
        """Up to its NUL, which must be within `most` bytes."""
        found = b""
        while len(found) < most:
            piece = self._piece(at + len(found))
            head, end, _ = piece.partition(b"\0")
            found += head
            if end:
                if len(found) >= most:
                    break
                return found
        raise Unreadable(beyond, "too_large" if beyond == errno.E2BIG else "")

    def _piece(self, at: int) -> bytes:
        """What is at this address up to the end of its page; never empty."""
        page_at = at & ~(_PAGE - 1)
        if page_at != self._page_at:
            try:
                self._page = os.pread(self._memory, _PAGE, page_at)
            except (OSError, OverflowError):
                self._page = b""
            self._page_at = page_at
        piece = self._page[at - page_at :]
        if not piece:
            raise Unreadable(errno.EFAULT, "fault")
        return piece

    # --- /proc

    def _link(self, name: str) -> bytes:
        try:
            return os.readlink(f"/proc/{self.thread}/{name}".encode())
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise Unreadable(errno.ENAMETOOLONG) from error
            raise Unreadable(errno.EACCES, "unreadable") from error

    def _image(self, pid: int, directory: int, path: bytes, flags: int, cwd: bytes) -> bytes:
        if not path:
            if not flags & sys.AT_EMPTY_PATH or directory < 0:
                raise Unreadable(errno.ENOENT)
            return self._descriptor(directory)
        if path.startswith(b"/"):
            start = b"/"
        elif directory == sys.AT_FDCWD:
            start = cwd
        else:
            start = self._descriptor(directory)
        return _followed(start, path, {b"/proc/self": b"%d" % pid, b"/proc/thread-self": self._own(pid)})

    def _own(self, pid: int) -> bytes:
        return b"%d/task/%d" % (pid, self.thread)

    def _descriptor(self, number: int) -> bytes:
        try:
            return os.readlink(f"/proc/{self.thread}/fd/{number}".encode())
        except OSError as error:
            raise Unreadable(errno.EBADF) from error


def process_of(thread: int) -> int:
    """The process that it belongs to, or itself if it has gone: whoever must know asks whether its call waits."""
    try:
        return _ids(thread)[0]
    except Unreadable:
        return thread


def _ids(thread: int) -> tuple[int, int]:
    """Its process, and the parent of that."""
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            lines = file.read(_STATUS_BYTES).split(b"\n")
        fields = dict(line.split(b":\t", 1) for line in lines if line.startswith((b"Tgid:", b"PPid:")))
        return int(fields[b"Tgid"]), int(fields[b"PPid"])
    except (OSError, KeyError, ValueError) as error:
        raise Unreadable(errno.EACCES, "unreadable") from error


def _followed(start: bytes, path: bytes, own: dict[bytes, bytes]) -> bytes:
    """Where the path leads in this view, which is the sandbox's; `own` are the links that would lead to ourselves."""
    at, links, steps = start, 0, 0
    pending = path.split(b"/")[::-1]
    while pending:
        part = pending.pop()
        steps += 1
        if steps > _MOST_STEPS or links > _MOST_LINKS:
            raise Unreadable(errno.ELOOP)
        if part in (b"", b"."):
            continue
        if part == b"..":
            at = os.path.dirname(at)
            continue
        place = at.rstrip(b"/") + b"/" + part
        target = own.get(place) or _target(place)
        if target is None:
            at = place
        elif _MAGIC.fullmatch(place):
            at, links = target, links + 1  # the kernel goes to the file itself, and this is its name
        else:
            links += 1
            at = b"/" if target.startswith(b"/") else at
            pending += target.split(b"/")[::-1]
    return at


def _target(place: bytes) -> bytes | None:
    """What a link says; None for anything else that is there."""
    try:
        return os.readlink(place)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise Unreadable(error.errno) from error
        raise Unreadable(errno.EACCES, "unreadable") from error


def _signed(argument: int) -> int:
    """A descriptor's number: the kernel looks at the lower half of the register."""
    low = argument & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


def _text(data: bytes) -> str:
    """Bytes that are no UTF-8 survive as lone surrogates, which no policy can be asked about: it is refused then."""
    return data.decode("utf-8", "surrogateescape")
