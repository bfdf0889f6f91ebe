"""Keeps the open cases on disk, one small file each in a directory of the daemon's own. Survives SIGKILL at any point.

A file is whole or not there: it is written beside, flushed, and renamed. One that is not what was written (cut, edited,
unreadable) is no case and never a grant: it is put aside. Bounded by the number of cases that `desk` lets be and the
bytes that a case may have. Used by `office`.
"""

import hashlib
import logging
import os
import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sandboxd.approval.case import Case, sound
from sandboxd.audit.segment import open_private, private_directory

DIRECTORY = "approvals"  # below the state directory
MAX_FILE_BYTES = 1 << 20
_NAME = re.compile(r"([0-9a-f]{32})\.json", re.ASCII)
_CASE: TypeAdapter[Case] = TypeAdapter(Case)

log = logging.getLogger(__name__)


class Store:
    def __init__(self, directory: Path) -> None:
        """OSError if the directory cannot be made, read, or is not ours."""
        self._path = directory
        self._directory = private_directory(directory)

    def close(self) -> None:
        os.close(self._directory)
        self._directory = -1

    def load(self) -> tuple[Case, ...]:
        """Oldest first. What an earlier life left half written is removed. OSError if the directory cannot be read."""
        found = []
        for name in [path.name for path in self._path.iterdir()]:
            if name.startswith("."):
                os.unlink(name, dir_fd=self._directory)  # never renamed, so never a case
            elif (match := _NAME.fullmatch(name)) and (case := self._read(name, match[1])) is not None:
                found.append(case)
        return tuple(sorted(found, key=lambda case: (case.requested_at, case.approval_id)))

    def save(self, case: Case) -> None:
        """It is on the disk when this returns. OSError if it cannot be; then what was there before still is."""
        body = _CASE.dump_json(case)
        data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
        beside = f".{case.approval_id}.json"
        descriptor = open_private(self._directory, beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, _file(case), src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            os.unlink(beside, dir_fd=self._directory)
            raise
        os.fsync(self._directory)

    def remove(self, case: Case) -> None:
        """It does not come back when this returns. OSError if that cannot be said; a file that is gone is none."""
        try:
            os.unlink(_file(case), dir_fd=self._directory)
        except FileNotFoundError:
            return
        os.fsync(self._directory)

    def _read(self, name: str, approval_id: str) -> Case | None:
        try:
            with os.fdopen(open_private(self._directory, name, os.O_RDONLY), "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            return _decode(data, approval_id)
        except (OSError, ValueError) as error:
            log.error("an approval is damaged and counts for nothing", extra={"file": name, "error": str(error)[:200]})
            os.rename(name, f"{name}.damaged", src_dir_fd=self._directory, dst_dir_fd=self._directory)
            return None


def _file(case: Case) -> str:
    return f"{case.approval_id}.json"


def _decode(data: bytes, approval_id: str) -> Case:
    """ValueError for all that `save` did not write under this name."""
    digest, newline, rest = data.partition(b"\n")
    body, end = rest[:-1], rest[-1:]
    if not newline or end != b"\n" or hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("it is not what its digest says")
    try:
        case = _CASE.validate_json(body, strict=True)
    except ValidationError as error:
        raise ValueError(f"it has another form: {error.error_count()} mistakes") from error
    if case.approval_id != approval_id or not sound(case):
        raise ValueError("what it says cannot have come about")
    return case
