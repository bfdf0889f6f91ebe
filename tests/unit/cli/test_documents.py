import hashlib
import json
from contextlib import closing
from pathlib import Path

import pytest

from sandboxd.audit.key import KEYS, PUBLIC, open_key
from sandboxd.audit.store import DOCUMENTS, Store
from sandboxd.cli.documents import document, public_key
from sandboxd.cli.mistake import Mistake


def _stored(state_dir: Path, text: bytes) -> str:
    with closing(Store(state_dir / DOCUMENTS, fsync=False)) as store:
        return store.put(text)


def test_document_comes_out_as_it_was_stored(tmp_path: Path) -> None:
    text = b'{"a":"b\\u0007","c":1e999}\n'
    assert document(tmp_path, _stored(tmp_path, text)) == text.decode()


def test_what_a_terminal_obeys_is_escaped_and_means_the_same(tmp_path: Path) -> None:
    """Policy inputs are UTF-8: they may hold the one-character forms of escape sequences, and marks that turn text."""
    value = {"source": "\u009b31m \u202e \x7f ü \U0001f600"}
    shown = document(tmp_path, _stored(tmp_path, json.dumps(value, ensure_ascii=False).encode()))
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown) == value


def test_document_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    assert document(tmp_path, _stored(tmp_path, b"\xff\x1b[2J")) == r"\xff\u001b[2J"


@pytest.mark.parametrize("digest", ["", "abc", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "../../etc/passwd"])
def test_what_is_no_digest_is_refused_with_what_it_should_be(digest: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="is no SHA-256; give the 64 digits"):
        document(tmp_path, digest)


def test_absent_document_and_absent_store_say_where_to_look(tmp_path: Path) -> None:
    absent = hashlib.sha256(b"absent").hexdigest()
    with pytest.raises(Mistake, match="look whether --config is the node's") as no_store:
        document(tmp_path, absent)
    assert repr(str(tmp_path / DOCUMENTS)) in str(no_store.value)
    _stored(tmp_path, b"another")
    with pytest.raises(Mistake, match=f"no such document: '{absent}'"):
        document(tmp_path, absent)


def test_changed_document_is_not_shown(tmp_path: Path) -> None:
    digest = _stored(tmp_path, b"hello")
    (pack,) = (tmp_path / DOCUMENTS).iterdir()
    pack.write_bytes(pack.read_bytes().replace(b"hello", b"other"))
    with pytest.raises(Mistake, match="not what was stored"):
        document(tmp_path, digest)


def test_store_that_cannot_be_read_says_who_can(tmp_path: Path) -> None:
    (tmp_path / DOCUMENTS).mkdir()
    (tmp_path / DOCUMENTS / "1.pack").mkdir()
    with pytest.raises(Mistake, match="read it as root or as the daemon's user"):
        document(tmp_path, "0" * 64)
    (tmp_path / DOCUMENTS / "1.pack").rmdir()
    (tmp_path / DOCUMENTS / "1.pack").symlink_to("/etc/passwd")
    with pytest.raises(Mistake, match=r"cannot read .*symbolic"):
        document(tmp_path, "0" * 64)


def test_public_key_comes_out_and_says_where_to_look_if_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"no key in .*look whether --config is the node's"):
        public_key(tmp_path)
    open_key(tmp_path)
    assert public_key(tmp_path).startswith("-----BEGIN PUBLIC KEY-----\n")
    (tmp_path / KEYS / PUBLIC).write_bytes(b"nothing")
    with pytest.raises(Mistake, match="is damaged: it is no public key"):
        public_key(tmp_path)
    (tmp_path / KEYS / PUBLIC).unlink()
    (tmp_path / KEYS / PUBLIC).symlink_to("/etc/passwd")
    with pytest.raises(Mistake, match="cannot read"):
        public_key(tmp_path)
