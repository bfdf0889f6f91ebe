import hashlib
import json

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.bundle_data import as_json, parse, plain, sha256


def test_json_comes_out_with_its_numbers_as_they_were_written() -> None:
    text = '{"a": [1.50, -0, 1e400, 12345678901234567890, true, null], "\u00e9": "\\u2028\\u0000<"}'
    value = parse("data.json", text.encode())
    assert as_json(value) == text.replace("\\u2028", "\u2028")
    assert plain(parse("data.json", b'{"a": [1, 2.5]}')) == {"a": [1, 2.5]}


def test_hash_is_of_the_canonical_text() -> None:
    value = parse("data.json", b'{"b": [1.50, {"z": null}], "a": "<\\u00e9\\n\\u2028\\u007f/>"}')
    canonical = '{"a":"<\u00e9\\n\\u2028\x7f/>","b":[1.50,{"z":null}]}'
    assert sha256(value) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"a": 1, "a": 2}', "key 'a' is there twice"),
        (b'{"x": {"a": 1, "a": 1}}', "key 'a' is there twice"),
        (b'{"a": NaN}', "NaN is no value"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
        (b"[" * 66 + b"]" * 66, "nested deeper than 64"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": [' + b"1" * 5000 + b"]}", "a number has 5000 characters, over 400"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=rf"data\.json: .*{why}"):
        parse("data.json", content)


def test_yaml_is_read_as_the_json_it_means() -> None:
    text = 'a: [1, 2.50, true, null, "yes", -7]\nb: {c: word, "1": x}\nt: "2020-01-01"\n'
    expected = '{"a":[1,2.5,true,null,"yes",-7],"b":{"1":"x","c":"word"},"t":"2020-01-01"}'
    for name in ("data.yaml", "lib/data.yml"):
        value = parse(name, text.encode())
        assert plain(value) == json.loads(expected)
        assert sha256(value) == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a: yes", "one thing in YAML 1.1 and another"),
        (b"y: 1", "one thing in YAML 1.1 and another"),
        (b"a: 1e+3", "a float without a dot"),
        (b"a: 0o17", "one thing in YAML 1.1 and another"),
        (b"a: 017", "one thing in YAML 1.1 and another"),
        (b"a: 1:30", "one thing in YAML 1.1 and another"),
        (b"a: &x [1]\nb: *x", "has an alias"),
        (b"a: 1\na: 2", "found duplicate key"),
        (b"1: a", "key 1 is not a string"),
        (b"a: 2020-01-01", "which JSON does not have"),
        (b"a: .nan", "no number of JSON"),
        (b"a: 99999999999999999999", "more than 64 bits"),
        (b"a: !!python/object:os.system {}", "not YAML|could not determine"),
        (b"a: [", "data.yaml:"),
        (b"a: 1\n---\nb: 2", "data.yaml:"),
    ],
)
def test_yaml_that_is_not_clearly_json_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=why):
        parse("data.yaml", content)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.0", "1"),
        ("0.0", "0"),
        ("-0.0", "-0"),
        ("100000.0", "100000"),
        ("0.00001", "0.00001"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1.25e-10", "1.25e-10"),
        ("1.0e+20", "100000000000000000000"),
        ("1.0e+21", "1e+21"),
        ("1.5e+300", "1.5e+300"),
    ],
)
def test_yaml_float_is_hashed_as_go_writes_it(value: str, text: str) -> None:
    assert sha256(parse("data.yaml", f"[{value}]".encode())) == hashlib.sha256(f"[{text}]".encode()).hexdigest()
