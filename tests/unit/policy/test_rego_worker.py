"""What is evaluated inside the worker; its confinement is tested from outside in `test_rego`."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regopy import Interpreter

from sandboxd.host.confined import ANSWER, FAILED, UNDEFINED
from sandboxd.policy.rego_worker import _Engine, _Input, _load

ESCAPES = st.text(st.sampled_from('ab"\\\n\t\0\x1b\x7f/{}%`\u2028é😀'), max_size=8)
VALUES = st.recursive(
    ESCAPES | st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**9), 10**9).map(lambda number: number / 64)
    | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ESCAPES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
SEEN = """package p
import rego.v1
value := [
	input.x,
	[type_name(x) | some x in input.l],
	[x | some x in input.l; is_string(x); contains(x, "\\"")],
	[x | some x in input.l; x == "a\\nb"],
	[x | some x in input.l; x > 5],
]
"""


def load(text: str) -> _Engine:
    body = {
        "modules": [["p.rego", f"package sandboxd\nimport rego.v1\n{text}"]],
        "data": "{}",
        "entrypoint": "sandboxd/decision",
    }
    engine, status, message = _load(json.dumps(body).encode())
    assert engine is not None, message
    assert status == ANSWER
    return engine


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=4), VALUES)
def test_an_input_built_by_value_is_the_same_as_its_text(items: list[Any], value: Any) -> None:
    document = {"l": items, "x": value}
    interpreter = Interpreter()
    interpreter.add_module("p.rego", SEEN)
    bundle = interpreter.build(None, ["p/value"])
    interpreter.set_input_term(json.dumps(document, ensure_ascii=False))
    as_text = str(interpreter.query_bundle_entrypoint(bundle, "p/value"))
    if not _Input(interpreter).set(document):
        return  # then it goes as text anyway
    assert str(interpreter.query_bundle_entrypoint(bundle, "p/value")) == as_text


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, {"a": [2**64]}, 1e-7, 0.0078125])
def test_numbers_that_the_fast_way_would_change_go_as_text(value: object) -> None:
    assert not _Input(Interpreter()).set(value)
    engine = load("decision := input")
    assert json.loads(engine.ask(json.dumps(value).encode())[1])["expressions"] == [value]


def test_this_version_of_the_library_takes_the_fast_way() -> None:
    assert load("decision := true")._input is not None


def test_answers_are_told_apart() -> None:
    engine = load("decision := true if input.x == 1\ndecision := to_number(input.s) if input.x == 2")
    assert engine.ask(b'{"x": 1}') == (ANSWER, '{"expressions":[true]}')
    assert engine.ask(b'{"x": 3}') == (UNDEFINED, "")
    assert engine.ask(b'{"x": 2, "s": "no"}')[0] == FAILED
    assert engine.ask(b'{"x": 1}')[0] == ANSWER


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_document_that_is_not_json_fails_and_does_no_harm(document: bytes) -> None:
    engine = load("decision := true")
    assert engine.ask(document)[0] == FAILED
    assert engine.ask(b"{}")[0] == ANSWER


def test_a_policy_that_does_not_parse_says_where() -> None:
    body = {"modules": [["p.rego", "package p\na := {"]], "data": "{}", "entrypoint": "p/a"}
    engine, status, message = _load(json.dumps(body).encode())
    assert (engine, status) == (None, FAILED)
    assert "p.rego|" in message
