"""Writes collected files below a directory. Their names were chosen by the program, so they are never trusted.

No name leaves the directory, no link in it is followed, and no set-uid bit comes along. Called by `sandboxctl run`.
"""

import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath

from sandboxd.cli.mistake import Mistake
from sandboxd.client.model import OutputFile


def write(directory: Path, files: Iterable[OutputFile]) -> None:
    """`Mistake` names the first file that cannot be written safely."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            _write_one(directory, file)
        except OSError as error:
            raise Mistake(
                f"cannot write {file.path!r} below {str(directory)!r}: {error.strerror}; use an empty directory"
            ) from error


def _write_one(directory: Path, file: OutputFile) -> None:
    path = PurePosixPath(file.path)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in file.path:
        raise Mistake(f"refusing collected file {file.path!r}: its path leads out of the output directory")
    with ExitStack() as stack:
        parent = _opened(stack, os.open(directory, os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC))
        for part in path.parts[:-1]:
            parent = _opened(stack, _subdirectory(part, parent))
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        target = _opened(stack, os.open(path.name, flags, file.mode & 0o755, dir_fd=parent))
        os.ftruncate(target, 0)
        view = memoryview(file.content)
        while view:
            view = view[os.write(target, view) :]


def _subdirectory(name: str, parent: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
    return os.open(name, os.O_DIRECTORY | os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _opened(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd
