import json

import pytest

from sandboxd.redaction.document import REDACTED, redacted


def found(text: str) -> str:
    return "ours" if "secret" in text else "split" if "se cr et" in text else ""


def without(value: object) -> object:
    return json.loads(redacted(json.dumps(value).encode(), found))


@pytest.mark.parametrize(
    ("value", "rest"),
    [
        ("a secret", {REDACTED: "ours"}),
        (["x", "secret"], ["x", {REDACTED: "ours"}]),
        ({"a": {"b": ["the secret"]}, "c": 1}, {"a": {"b": [{REDACTED: "ours"}]}, "c": 1}),
        ({"a": {"secret": 1, "b": 2}}, {"a": {REDACTED: "ours"}}),
        ({"argv": ["x", "se cr", "et"]}, {"argv": {REDACTED: "split"}}),
        (["secret", "se cr", "et"], {REDACTED: "split"}),
        (["se cr", 1, "et"], ["se cr", 1, "et"]),
        (["se cr", "secret", "et"], ["se cr", {REDACTED: "ours"}, "et"]),
    ],
)
def test_text_that_holds_a_match_goes_whole(value: object, rest: object) -> None:
    assert without(value) == rest


def test_without_a_match_the_document_is_the_same_to_the_byte() -> None:
    document = b'{"b": [1, null, true, 1.5],   "a": "x"}'
    assert redacted(document, found) is document


def test_what_is_left_is_canonical() -> None:
    assert (
        redacted(b'{"b": "secret", "a": "\xc3\xa9"}', found) == b'{"a":"\\u00e9","b":{"%b":"ours"}}' % REDACTED.encode()
    )


def test_match_that_json_escapes_is_seen() -> None:
    assert b"secret" not in redacted(b'["\\u0073ecret"]', found)
