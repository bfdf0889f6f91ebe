import hashlib
from pathlib import Path

from sandboxd.audit.digest import PLAIN, keyed
from sandboxd.audit.key import open_key
from sandboxd.audit.line import body
from sandboxd.event import ExecutionRefused
from tests.fakes.events import made


def test_a_keyed_digest_is_the_same_on_one_node_and_another_on_each(tmp_path: Path) -> None:
    here, there = keyed(open_key(tmp_path / "a")), keyed(open_key(tmp_path / "b"))
    assert here.of(b"pin 1234") == keyed(open_key(tmp_path / "a")).of(b"pin 1234")
    assert len({here.of(b"pin 1234"), here.of(b"pin 1235"), there.of(b"pin 1234"), PLAIN.of(b"pin 1234")}) == 4


def test_text_that_is_no_unicode_has_a_digest(tmp_path: Path) -> None:
    assert keyed(open_key(tmp_path)).of_text("\ud800") != PLAIN.of_text("\ud800")


def test_what_is_cut_off_a_record_cannot_be_tried_out(tmp_path: Path) -> None:
    text = "x" * 600 + "1234"
    event = made(ExecutionRefused, message=text, reason=text)
    fields = body(event, keyed(open_key(tmp_path)))["fields"]
    assert isinstance(fields, dict)
    assert fields["message_hmac"] == fields["reason_hmac"] == keyed(open_key(tmp_path)).of_text(text)
    assert hashlib.sha256(text.encode()).hexdigest() not in str(fields)
