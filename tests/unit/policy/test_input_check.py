import json
from typing import Any

import pytest

from sandboxd.errors import InvalidRequest
from sandboxd.policy.input_check import MOST_MISTAKES, read_input
from sandboxd.policy.sample import samples
from tests.fakes.policy import question, start


def document(**changes: object) -> bytes:
    """An ordinary question; `changes` by path, dots as `__`."""
    value: dict[str, Any] = json.loads(question(start()).document)
    for name, new in changes.items():
        *ways, last = name.split("__")
        inner = value
        for way in ways:
            inner = inner[way]
        inner[last] = new
    return json.dumps(value).encode()


def test_whatever_the_daemon_asks_is_an_input() -> None:
    for sample in samples():
        assert json.loads(read_input("s", sample.question.document)) == json.loads(sample.question.document)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"action": {"type": "file.eat"}}, r"action\.type: 'file\.eat' is not one of \['approval\.decide', "),
        ({"action": {}}, r"action\.type: is not there"),
        ({"action": 7}, r"action\.type: is not there"),
        ({"action": {"type": "file.get"}}, r"action: 'path' is a required property"),
        ({"action__argv": ["a", 7]}, r"action\.argv\.1: 7 is not of type 'string'"),
        ({"action__extra": 1}, r"action: .*'extra' was unexpected"),
        ({"caller": []}, r"caller: \[\] is not of type 'object'"),
        ({"api_version": "v0"}, r"api_version: 'sandboxd\.io/v1' was expected"),
    ],
)
def test_input_that_is_none_is_told_with_the_place_of_each_mistake(changes: dict[str, object], mistake: str) -> None:
    with pytest.raises(InvalidRequest, match=mistake):
        read_input("a.json", document(**changes))


def test_all_mistakes_are_told_up_to_a_number() -> None:
    with pytest.raises(InvalidRequest) as told:
        read_input("a.json", document(action__argv=[1] * 50, node=7))
    assert len(str(told.value).splitlines()) == MOST_MISTAKES


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"{", "not JSON"),
        (b'{"action": {}, "action": {}}', "key 'action' is there twice"),
        (b"[]", "is not there"),
        (b" " * (1024 * 1024 + 1), "over 1048576 bytes"),
    ],
)
def test_text_that_is_no_document_is_refused(content: bytes, mistake: str) -> None:
    with pytest.raises(InvalidRequest, match=mistake):
        read_input("a.json", content)
