"""Journals for tests, with a key of their own: opened, filled, read, and checked with that key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sandboxd.audit import checkpoint
from sandboxd.audit.journal import Journal
from sandboxd.audit.key import SigningKey, key_id, parse_public, public_pem
from sandboxd.audit.line import body, decode
from sandboxd.audit.segment import segments
from sandboxd.audit.verify import VerifyResult, verify
from sandboxd.sink.base import Record
from tests.fakes.events import violated


def signing_key(seed: int = 1) -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return SigningKey(private, key_id(private.public_key()))


KEY = signing_key()


def open_journal(directory: Path, segment_bytes: int = 1 << 20, key: SigningKey = KEY, boot: str = "boot") -> Journal:
    return Journal(
        directory, boot, "node", segment_bytes, lambda link, time_ns: checkpoint.content(key, boot, link, time_ns)
    )


@contextmanager
def opened(directory: Path, segment_bytes: int = 1 << 20, key: SigningKey = KEY) -> Iterator[Journal]:
    journal = open_journal(directory, segment_bytes, key)
    try:
        yield journal
        keep(journal)
    finally:
        journal.close()


def keep(journal: Journal) -> None:
    if journal.sealed is not None:
        journal.keep(journal.sealed)


def fill(directory: Path, count: int, segment_bytes: int = 1 << 20, key: SigningKey = KEY) -> list[Path]:
    """That many events between checkpoints, one at least before and one after them; the segments."""
    with opened(directory, segment_bytes, key) as journal:
        for number in range(count):
            journal.append(body(violated(f"number {number}")), number)
        journal.checkpoint(count)
    return [segment.path for segment in segments(directory)]


def checked(directory: Path) -> VerifyResult:
    return verify(directory, KEY.private.public_key())


def public_of(state: Path) -> Ed25519PublicKey:
    """The key that a recorder made there."""
    return parse_public(public_pem(state))


def records(journal: Path) -> list[Record]:
    """All of them, checkpoints too."""
    return [decode(line) for segment in segments(journal) for line in segment.path.read_bytes().splitlines()]


def events(journal: Path) -> list[Record]:
    """Those that are no checkpoints."""
    return [record for record in records(journal) if not checkpoint.is_checkpoint(record)]
