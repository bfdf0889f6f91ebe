"""Content-addressed documents beside the journal: what a decision was taken on, whole, while events stay short.

They are appended to packs, `SHA-256 LENGTH` and the document on the next lines: a file each would take two inodes and
half a millisecond of every execution. Never overwrites, never gives out a document that is not what its digest says.
Called by `audit.recorder`, and to read one by the command `sandboxd audit show`.
"""

import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from sandboxd.audit.segment import open_private, private_directory

DOCUMENTS = "documents"  # below the state directory
PACK_BYTES = 64 << 20
_HEADER = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,10})\n")
_HEADER_BYTES = 64 + 1 + 10 + 1


class Store:
    def __init__(self, directory: Path, *, fsync: bool, pack_bytes: int = PACK_BYTES) -> None:
        """OSError if the directory cannot be made or is not ours. The first document begins a pack of this store's."""
        self._path = directory
        self._fsync = fsync
        self._pack_bytes = pack_bytes
        self._directory = private_directory(directory)
        self._pack = -1
        self._size = 0
        self.open_pack = ""  # name of the one that is being written

    @property
    def directory(self) -> Path:
        return self._path

    def close(self) -> None:
        os.close(self._directory)
        if self._pack >= 0:
            os.close(self._pack)
        self._directory = self._pack = -1  # a number that is closed may be another file's soon

    def put(self, document: bytes) -> str:
        """Its SHA-256 in hex. Whole or not there at all; OSError if it cannot be written."""
        digest = hashlib.sha256(document).hexdigest()
        data = b"%b %d\n%b\n" % (digest.encode(), len(document), document)
        if self._size >= self._pack_bytes or not self._goes_on():
            self._begin()
        if os.write(self._pack, data) != len(data):
            os.ftruncate(self._pack, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fsync:
            os.fdatasync(self._pack)
        self._size += len(data)
        return digest

    def _goes_on(self) -> bool:
        """Whether the next document can be found behind those that are there: nobody deleted or cut the pack."""
        if self._pack < 0:
            return False
        status = os.fstat(self._pack)
        if status.st_nlink == 0 or status.st_size < self._size:
            return False
        if status.st_size > self._size:  # what is left of a write that failed
            os.ftruncate(self._pack, self._size)
        return True

    def _begin(self) -> None:
        """Never goes on with a pack of an earlier process: only the end of one can be torn."""
        name = f"{time.time_ns():020d}.pack"
        pack = open_private(self._directory, name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            if self._fsync:
                os.fsync(self._directory)
        except OSError:
            os.close(pack)
            raise
        if self._pack >= 0:
            os.close(self._pack)
        self._pack, self._size, self.open_pack = pack, 0, name


def find(directory: Path, digest: str) -> bytes:
    """The document, checked against its name: FileNotFoundError if it is absent, ValueError if it was changed."""
    changed = False  # or torn; another pack may have it whole
    for pack in packs(directory):
        size = os.fstat(pack).st_size
        for found, offset, length in _index(pack):
            if found == digest:
                document = os.pread(pack, min(length, max(size - offset, 0)), offset)
                if hashlib.sha256(document).hexdigest() == digest:
                    return document
                changed = True
    if changed:
        raise ValueError(f"document {digest!r} is not what was stored under that name")
    raise FileNotFoundError(errno.ENOENT, "no such document", digest)


def find_all(directory: Path, digests: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Each of those documents that is there and is what its digest says, once, in one pass. OSError as `packs`."""
    missing = set(digests)
    for pack in packs(directory):
        size = os.fstat(pack).st_size
        for found, offset, length in _index(pack):
            if found in missing:
                document = os.pread(pack, min(length, max(size - offset, 0)), offset)
                if hashlib.sha256(document).hexdigest() == found:
                    missing.discard(found)
                    yield found, document
        if not missing:
            return


def packs(directory: Path) -> Iterator[int]:
    """Each opened until the next is asked for, newest first; one that is deleted meanwhile is passed over.

    OSError for what is no file or directory of a store's, such as a link: root may read what the daemon owns.
    """
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in sorted((path.name for path in directory.glob("*.pack")), reverse=True):
            try:
                pack = open_private(opened, name, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                yield pack
            finally:
                os.close(pack)
    finally:
        os.close(opened)


def _index(pack: int) -> Iterator[tuple[str, int, int]]:
    """Digest, offset and length of each document; ends at what is no header."""
    offset = 0
    while header := _HEADER.match(os.pread(pack, _HEADER_BYTES, offset)):
        offset += header.end()
        length = int(header[2])
        yield header[1].decode(), offset, length
        offset += length + 1
