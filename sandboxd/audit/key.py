"""The Ed25519 key that signs the journal's checkpoints: made at the first start, kept beside the journal, not in it.

Never goes on with a key that somebody else may know or may have put there, and never replaces one. Called by
`audit.recorder`; the public half is for whoever verifies.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sandboxd.audit.segment import open_private, private_directory
from sandboxd.errors import AuditUnavailable

KEYS = "keys"  # below the state directory, so that a copy of journal/ does not carry it
PRIVATE, PUBLIC = "audit.pem", "audit.pub.pem"
KEY_INVALID = "audit_key_invalid"
_FRESH = ".audit.pem"
_MOST_BYTES = 4096
_PRIVATE_MODE, _PUBLIC_MODE = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class SigningKey:
    private: Ed25519PrivateKey
    key_id: str


def key_id(public: Ed25519PublicKey) -> str:
    """What checkpoints name a key by: the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def open_key(state: Path) -> SigningKey:
    """The key of that state directory, made if there never was one. AuditUnavailable says what is wrong with it."""
    directory = state / KEYS
    try:
        with _locked(directory) as opened:
            private = _private(opened, directory)
            _export(opened, directory, private.public_key())
    except OSError as error:
        raise AuditUnavailable(
            f"the key of the journal cannot be used: {error.strerror}: {str(directory)!r}", reason=KEY_INVALID
        ) from error
    return SigningKey(private, key_id(private.public_key()))


def public_pem(state: Path) -> bytes:
    """The public half as it was exported, and nothing that may stand beside it in the file.

    OSError if it cannot be read, ValueError if it is no such key.
    """
    directory = os.open(state / KEYS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = _read(directory, PUBLIC)
    finally:
        os.close(directory)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(state / KEYS / PUBLIC))
    return _pem(parse_public(data))


def parse_public(pem: bytes) -> Ed25519PublicKey:
    """ValueError unless it is the PEM of a public Ed25519 key."""
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it is no public key in PEM") from error
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("it is a public key of another kind than Ed25519")
    return public


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Two daemons that start at once get one key."""
    opened = private_directory(directory)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened
    finally:
        os.close(opened)


def _private(directory: int, path: Path) -> Ed25519PrivateKey:
    data = _read(directory, PRIVATE)
    if data is None:
        if _read(directory, PUBLIC) is not None:
            raise AuditUnavailable(
                f"{str(path / PRIVATE)!r} is gone and its public half is there; put it back, or keep what is there as "
                "evidence and give sandboxd an empty state_dir",
                reason=KEY_INVALID,
            )
        return _make(directory)
    status = os.stat(PRIVATE, dir_fd=directory, follow_symlinks=False)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != _PRIVATE_MODE:
        raise AuditUnavailable(
            f"{str(path / PRIVATE)!r} belongs to uid {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}; "
            f"see who may have read or put it there, then give it to uid {os.geteuid()} with mode 0600",
            reason=KEY_INVALID,
        )
    try:
        private = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuditUnavailable(
            f"{str(path / PRIVATE)!r} is no private key in PEM; put back the one that signed this journal",
            reason=KEY_INVALID,
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise AuditUnavailable(
            f"{str(path / PRIVATE)!r} is a key of another kind than Ed25519; put back the one that signed this journal",
            reason=KEY_INVALID,
        )
    return private


def _make(directory: int) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(directory, PRIVATE, pem, _PRIVATE_MODE)
    return private


def _export(directory: int, path: Path, public: Ed25519PublicKey) -> None:
    pem = _pem(public)
    exported = _read(directory, PUBLIC)
    if exported is None:
        _write(directory, PUBLIC, pem, _PUBLIC_MODE)
    elif exported != pem:
        raise AuditUnavailable(
            f"{str(path / PUBLIC)!r} is not the public half of {PRIVATE!r}: one of them was replaced; put back the "
            "pair that signed this journal",
            reason=KEY_INVALID,
        )


def _pem(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _read(directory: int, name: str) -> bytes | None:
    """None if there is none. OSError for a link or anything else that is no file."""
    try:
        descriptor = open_private(directory, name, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def _write(directory: int, name: str, data: bytes, mode: int) -> None:
    """Whole or not at all, on the disk when it returns."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_FRESH, dir_fd=directory)  # of a start that was cut short
    descriptor = open_private(directory, _FRESH, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(_FRESH, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
