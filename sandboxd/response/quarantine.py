"""Who is quarantined: tenants, or single subjects of them, whose every action is denied until an operator lifts it.

Kept in one small file of the state directory, so that no restart lifts one. Never fails open: a file that is not what
was written keeps the daemon from starting. Asked by `gate` before each decision, changed by `responder`.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sandboxd.audit.segment import open_private, private_directory
from sandboxd.errors import ConfigInvalid
from sandboxd.model import Caller

FILE = "quarantine"  # below the state directory
MAX_FILE_BYTES = 1 << 20
MOST = 1000
BARRED = "this account is quarantined by the operators of the node; nothing of it runs until they lift that"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Of a whole tenant where `subject` is empty. Times are seconds since the epoch."""

    tenant: str
    subject: str
    since: float
    by: str
    rule: str  # that the response was mapped from, empty if an operator asked
    comment: str

    def covers(self, tenant: str, subject: str) -> bool:
        return self.tenant == tenant and self.subject in ("", subject)


_ALL: TypeAdapter[tuple[Quarantine, ...]] = TypeAdapter(tuple[Quarantine, ...])


class Quarantines:
    """All of them; what an earlier life left is in force from the start."""

    def __init__(self, state_dir: Path) -> None:
        """ConfigInvalid if what is kept there cannot be read, or is not what was written."""
        self._path = state_dir / FILE
        try:
            self._directory = private_directory(state_dir)
            self._all = self._read()
        except (OSError, ValueError) as error:
            raise ConfigInvalid(
                f"{str(self._path)!r} cannot be read ({error}), and who is quarantined is not known without it; "
                "put it back as it was, or remove it to lift every quarantine"
            ) from error

    def __iter__(self) -> Iterator[Quarantine]:
        return iter(self._all)

    def barred(self, caller: Caller) -> str:
        """What to tell one who is quarantined; empty for everybody else."""
        if not self._all:
            return ""
        return BARRED if self.covers(caller.tenant, caller.subject) else ""

    def covers(self, tenant: str, subject: str) -> bool:
        return any(one.covers(tenant, subject) for one in self._all)

    def find(self, tenant: str, subject: str) -> Quarantine | None:
        """That very one."""
        return next((one for one in self._all if (one.tenant, one.subject) == (tenant, subject)), None)

    def add(self, quarantine: Quarantine) -> None:
        """In force at once; on the disk when this returns. OSError if it cannot be kept: it holds until a restart."""
        self._all = (*self._all, quarantine)
        self._write()

    def remove(self, quarantine: Quarantine) -> None:
        """On the disk first. OSError if it cannot be: then it stays in force."""
        former, self._all = self._all, tuple(one for one in self._all if one != quarantine)
        try:
            self._write()
        except OSError:
            self._all = former
            raise

    def close(self) -> None:
        os.close(self._directory)

    def _read(self) -> tuple[Quarantine, ...]:
        try:
            descriptor = open_private(self._directory, FILE, os.O_RDONLY)
        except FileNotFoundError:
            return ()
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        digest, newline, body = data.partition(b"\n")
        if not newline or hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("it is not what its digest says")
        try:
            return _ALL.validate_json(body, strict=True)
        except ValidationError as error:
            raise ValueError(f"it has another form: {error.error_count()} mistakes") from error

    def _write(self) -> None:
        """Whole or not at all, whenever we are killed."""
        body = _ALL.dump_json(self._all)
        beside = f".{FILE}"
        descriptor = open_private(self._directory, beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, FILE, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)
