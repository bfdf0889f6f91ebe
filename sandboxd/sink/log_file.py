"""A file that whole lines are appended to, and that is rotated by size: private, never through a link, never torn.

Never leaves half a line behind a failed write or a crash, never writes to a file that somebody moved away or deleted,
never takes a directory where somebody else could put a file in its place. Blocks. Used by the sinks that write files.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_BLOCK = 64 * 1024
_OTHERS_WRITE = 0o022


class LogFile:
    """Opens nothing before it is asked to. Every method raises OSError, and may be called again after that."""

    def __init__(self, path: Path, mode: int, rotate_bytes: int, keep: int, *, fsync: bool) -> None:
        self._path = path
        self._mode = mode
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._fsync = fsync
        self._directory = -1
        self._descriptor = -1
        self._size = 0  # of what is whole
        self._torn = False  # what is behind that has to be cut off

    def append(self, lines: bytes) -> None:
        """All of them or none."""
        self._open_current()
        if self._rotate_bytes and self._size and self._size + len(lines) > self._rotate_bytes:
            self._rotate()
            self._open_current()
        self._torn = True  # until all of it is there
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            if self._fsync and lines:
                os.fdatasync(self._descriptor)
        except OSError:
            self._cut()
            raise
        self._size += len(lines)
        self._torn = False

    def close(self) -> None:
        """Nothing is lost by it: what is next opens the file that is at the path by then."""
        for descriptor in (self._descriptor, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._directory = -1

    def _open_current(self) -> None:
        """The file that is at the path now, with a whole line at its end."""
        if self._descriptor >= 0 and not self._is_current():
            self.close()
        if self._descriptor < 0:
            self._open()
        if self._torn:
            self._cut()
            self._torn = False

    def _is_current(self) -> bool:
        """Somebody may have moved or deleted it, or its directory: what is written then, nobody finds."""
        try:
            at_path = self._path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(at_path, os.fstat(self._descriptor))

    def _open(self) -> None:
        self._directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_directory(os.fstat(self._directory), self._path.parent)
            self._descriptor = os.open(self._path.name, _FLAGS, self._mode, dir_fd=self._directory)
            if self._fsync:
                os.fsync(self._directory)  # it may be new
            self._take()
        except OSError:
            self.close()
            raise

    def _take(self) -> None:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != os.geteuid():
            raise PermissionError(
                errno.EPERM,
                f"it is not a regular file of uid {os.geteuid()} with one name; move it away",
                str(self._path),
            )
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(
                errno.EPERM, "somebody else writes to it; give each sink a file of its own", str(self._path)
            ) from error
        if stat.S_IMODE(status.st_mode) != self._mode:
            os.fchmod(self._descriptor, self._mode)
        self._size = _end_of_last_line(self._descriptor, status.st_size)
        self._torn = self._size != status.st_size

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._size)

    def _rotate(self) -> None:
        """PATH.1 is the newest of the old ones. What is over `keep` goes."""
        name = self._path.name
        for number in range(self._keep - 1, 0, -1):
            try:
                os.rename(
                    f"{name}.{number}", f"{name}.{number + 1}", src_dir_fd=self._directory, dst_dir_fd=self._directory
                )
            except FileNotFoundError:
                continue
        os.rename(name, f"{name}.1", src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self.close()


def _check_directory(status: os.stat_result, path: Path) -> None:
    if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & _OTHERS_WRITE:
        raise PermissionError(
            errno.EPERM, f"others may write there; give it to uid {os.geteuid()} alone (mode 0750 or less)", str(path)
        )


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Behind the last newline: what follows is half a line of before a crash."""
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
