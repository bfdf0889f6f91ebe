from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature

from sandboxd.audit import checkpoint
from sandboxd.audit.checkpoint import ForeignKey, content, prove, read
from sandboxd.audit.line import LineDamaged, Link, body, decode, encode
from sandboxd.audit.segment import private_directory
from sandboxd.sink.base import Record
from tests.fakes.events import violated
from tests.fakes.journal import KEY, signing_key

LINK = Link(41, "d" * 64)
PUBLIC = KEY.private.public_key()


def made() -> Record:
    return decode(encode(content(KEY, "boot", LINK, 7), LINK, "boot", "node", 7)[:-1])


def test_a_checkpoint_says_how_far_the_chain_had_come_under_its_key() -> None:
    found = read(made())
    assert (found.seq, found.sealed, found.key_id) == (42, LINK, KEY.key_id)
    prove(found, PUBLIC)


def test_what_it_says_is_signed_whole() -> None:
    found = read(made())
    others = (
        replace(found, boot="boo"),
        replace(found, time="1970-01-01T00:00:00.000000008Z"),
        replace(found, sealed=Link(40, LINK.digest)),
        replace(found, sealed=Link(41, "e" * 64)),
        replace(found, signature="0" * 128),
        replace(found, signature=found.signature[:-2]),
        replace(found, signature=f" {found.signature[1:]}"),
        replace(found, signature="\u0660" * 128),
    )
    for other in others:
        with pytest.raises(InvalidSignature):
            prove(other, PUBLIC)


def test_another_key_is_told_from_a_forged_signature() -> None:
    with pytest.raises(ForeignKey, match=KEY.key_id):
        prove(read(made()), signing_key(2).private.public_key())


@pytest.mark.parametrize("change", [{"seq": 43}, {"prev": "e" * 64}, {"rule": "journal.trimmed"}, {"fields": ()}])
def test_what_does_not_seal_the_record_before_it_is_none(change: dict[str, object]) -> None:
    with pytest.raises(LineDamaged):
        read(replace(made(), **change))  # type: ignore[arg-type]


def test_other_events_are_none() -> None:
    record = decode(encode(body(violated()), LINK, "boot", "node", 7)[:-1])
    assert not checkpoint.is_checkpoint(record)
    with pytest.raises(LineDamaged, match="no checkpoint"):
        read(record)


def test_the_last_one_is_kept_whole_and_private(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "journal")
    assert checkpoint.load(directory) is None
    for line in (b"first\n", b"second\n"):
        checkpoint.save(directory, line)
        assert checkpoint.load(directory) == line
    (kept,) = (tmp_path / "journal").iterdir()
    assert (kept.name, kept.stat().st_mode & 0o777) == (checkpoint.LAST, 0o600)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "journal")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "journal" / checkpoint.LAST).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        checkpoint.load(directory)
