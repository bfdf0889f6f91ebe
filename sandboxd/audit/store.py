"""Content-addressed documents beside the journal: what a decision was taken on, whole, while events stay short.

Never overwrites, never keeps a document under a name that is not its SHA-256. Called by `audit.recorder`.
"""

import hashlib
import os
import secrets
from pathlib import Path

from sandboxd.audit.segment import open_private, private_directory


class Store:
    def __init__(self, directory: Path, *, fsync: bool) -> None:
        """OSError if the directory cannot be made or is not ours."""
        self._path = directory
        self._fsync = fsync
        self._directory = private_directory(directory)
        for number in range(256):  # now, and not one after the other while requests wait
            os.close(self._folder(f"{number:02x}"))

    def close(self) -> None:
        os.close(self._directory)

    def put(self, document: bytes) -> str:
        """Its SHA-256 in hex. Whole under that name or not there at all; OSError if it cannot be written."""
        digest = hashlib.sha256(document).hexdigest()
        folder = self._folder(digest[:2])
        try:
            if not _is_there(digest, folder):
                self._write(folder, digest, document)
        finally:
            os.close(folder)
        return digest

    def get(self, digest: str) -> bytes:
        """The document, checked against its name: FileNotFoundError if it is absent, ValueError if it was changed."""
        document = (self._path / digest[:2] / digest).read_bytes()
        if hashlib.sha256(document).hexdigest() != digest:
            raise ValueError(f"document {digest!r} is not what was stored under that name")
        return document

    def _folder(self, name: str) -> int:
        """Below the directory, which is ours alone: what is there already we have made."""
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return private_directory(self._path / name)

    def _write(self, directory: int, digest: str, document: bytes) -> None:
        draft = f".{digest}.{secrets.token_hex(8)}"
        descriptor = open_private(directory, draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                view = memoryview(document)
                while view:
                    view = view[os.write(descriptor, view) :]
                if self._fsync:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(draft, digest, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(draft, dir_fd=directory)
            raise
        if self._fsync:
            os.fsync(directory)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
