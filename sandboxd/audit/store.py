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
        os.close(private_directory(directory))

    def put(self, document: bytes) -> str:
        """Its SHA-256 in hex. Whole under that name or not there at all; OSError if it cannot be written."""
        digest = hashlib.sha256(document).hexdigest()
        if self._where(digest).exists():
            return digest
        directory = private_directory(self._path / digest[:2])
        try:
            self._write(directory, digest, document)
        finally:
            os.close(directory)
        return digest

    def get(self, digest: str) -> bytes:
        """The document, checked against its name: FileNotFoundError if it is absent, ValueError if it was changed."""
        document = self._where(digest).read_bytes()
        if hashlib.sha256(document).hexdigest() != digest:
            raise ValueError(f"document {digest!r} is not what was stored under that name")
        return document

    def _where(self, digest: str) -> Path:
        return self._path / digest[:2] / digest

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
