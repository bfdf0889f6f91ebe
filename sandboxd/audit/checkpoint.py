"""Signed checkpoints: a record that says how far the chain had come, under the key of the daemon.

The last one is kept in a file beside the segments as well, so that a journal that was cut off behind it is found. Never
signs anything but a checkpoint. Made by `audit.recorder`, written by `audit.journal`, checked by `audit.verify`.
"""

import os
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sandboxd.audit.key import SigningKey, key_id
from sandboxd.audit.line import LineDamaged, Link, body, timestamp
from sandboxd.audit.segment import LONGEST_LINE_BYTES, open_private
from sandboxd.event import JournalCheckpoint
from sandboxd.sink.base import Record

LAST = "checkpoint.json"  # beside the segments: the line of the last checkpoint that is on the disk
_FRESH = ".checkpoint.json"
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the record `seq` says: the chain stands at `sealed`."""

    seq: int
    boot: str
    time: str
    sealed: Link
    key_id: str
    signature: str


class ForeignKey(Exception):
    """It was signed with another key."""


def content(key: SigningKey, boot: str, link: Link, time_ns: int) -> dict[str, object]:
    """What the next record has to hold to be a checkpoint of all that came before it."""
    statement = _statement(boot, link, timestamp(time_ns), key.key_id)
    signature = key.private.sign(statement).hex()
    return body(JournalCheckpoint("", "", "", "", "", "", link.seq, link.digest, key.key_id, signature))


def is_checkpoint(record: Record) -> bool:
    return record.rule == JournalCheckpoint.rule


def read(record: Record) -> Checkpoint:
    """LineDamaged if that record is no checkpoint that sealed what stands before it."""
    match dict(record.fields) if is_checkpoint(record) else {}:
        case {"sealed_seq": int(seq), "sealed_digest": str(digest), "key_id": str(key), "signature": str(signature)}:
            if (seq, digest) != (record.seq - 1, record.prev):
                raise LineDamaged("the checkpoint does not seal the record before it")
            return Checkpoint(record.seq, record.boot, record.time, Link(seq, digest), key, signature)
        case _:
            raise LineDamaged("it is no checkpoint")


def prove(checkpoint: Checkpoint, public: Ed25519PublicKey) -> None:
    """ForeignKey if it names another key, InvalidSignature if that key did not sign this."""
    if checkpoint.key_id != key_id(public):
        raise ForeignKey(checkpoint.key_id)
    if not _HEX.fullmatch(checkpoint.signature) or len(checkpoint.signature) != 128:
        raise InvalidSignature
    statement = _statement(checkpoint.boot, checkpoint.sealed, checkpoint.time, checkpoint.key_id)
    public.verify(bytes.fromhex(checkpoint.signature), statement)


def save(directory: int, line: bytes) -> None:
    """Whole or not at all, on the disk when it returns. OSError if it cannot be written."""
    descriptor = open_private(directory, _FRESH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(line)
        file.flush()
        os.fsync(descriptor)
    os.rename(_FRESH, LAST, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def load(directory: int) -> bytes | None:
    """The line of the last checkpoint, with its newline; None if there is none. OSError if it cannot be read."""
    try:
        descriptor = open_private(directory, LAST, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LONGEST_LINE_BYTES)


def _statement(boot: str, link: Link, time: str, key: str) -> bytes:
    return f"sandboxd journal checkpoint v1\n{boot}\n{link.seq}\n{link.digest}\n{time}\n{key}\n".encode()
