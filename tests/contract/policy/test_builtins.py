"""Every function that a policy may call gives the answer of the Rego reference, as a value and as a condition."""

import json

import pytest
from regopy import Interpreter

from sandboxd.policy.rego_builtins import PROVEN

# name: expressions that must hold
PROOFS: dict[str, tuple[str, ...]] = {
    "abs": ("abs(-2) == 2", "abs(2) == 2"),
    "array.concat": ("array.concat([1], [2, 3]) == [1, 2, 3]",),
    "array.reverse": ("array.reverse([1, 2]) == [2, 1]",),
    "array.slice": ("array.slice([1, 2, 3], 0, 2) == [1, 2]", "array.slice([1], 0, 9) == [1]"),
    "concat": ('concat(",", ["a", "b"]) == "a,b"', 'concat(",", []) == ""'),
    "contains": ('contains("abc", "b")', 'not contains("abc", "d")'),
    "count": ("count([1, 2]) == 2", "count({1, 1}) == 1", 'count({"a": 1}) == 1', "count([]) == 0"),
    "endswith": ('endswith("abc", "bc")', 'not endswith("abc", "ab")'),
    "glob.match": (
        'glob.match("a*", ["."], "abc")',
        'not glob.match("a*", ["."], "a.c")',
        'glob.match("**", ["."], "a.c")',
    ),
    "intersection": ("intersection({{1, 2}, {2, 3}}) == {2}",),
    "is_array": ("is_array([])", "not is_bad", "is_array([1])"),
    "is_boolean": ("is_boolean(false)",),
    "is_null": ("is_null(null)",),
    "is_number": ("is_number(1.5)",),
    "is_object": ("is_object({})",),
    "is_set": ("is_set({1})",),
    "is_string": ('is_string("")',),
    "lower": ('lower("AbÉ") != ""', 'lower("AB") == "ab"'),
    "numbers.range": ("numbers.range(1, 3) == [1, 2, 3]",),
    "object.filter": ('object.filter({"a": 1, "b": 2}, ["a"]) == {"a": 1}',),
    "object.get": (
        'object.get({"a": 1}, "a", 2) == 1',
        'object.get({"a": {"b": 3}}, ["a", "b"], 2) == 3',
        'object.get({}, "a", 2) == 2',
    ),
    "object.keys": ('object.keys({"a": 1, "b": 2}) == {"a", "b"}',),
    "object.remove": ('object.remove({"a": 1, "b": 2}, ["a"]) == {"b": 2}',),
    "product": ("product([2, 3]) == 6",),
    "regex.match": ('regex.match("^a[0-9]+$", "a12")', 'not regex.match("^a[0-9]+$", "ab")'),
    "split": ('split("a,b", ",") == ["a", "b"]',),
    "sprintf": ('sprintf("%s=%d", ["a", 1]) == "a=1"', 'sprintf("%v", ["a"]) == "a"'),
    "startswith": ('startswith("abc", "ab")', 'not startswith("abc", "bc")'),
    "strings.any_prefix_match": (
        'strings.any_prefix_match("abc", ["x", "ab"])',
        'not strings.any_prefix_match("abc", ["x"])',
    ),
    "strings.any_suffix_match": (
        'strings.any_suffix_match("abc", ["x", "bc"])',
        'not strings.any_suffix_match("abc", ["x"])',
    ),
    "sum": ("sum([1, 2]) == 3", "sum([]) == 0"),
    "type_name": ('type_name(1) == "number"', 'type_name({}) == "object"', 'type_name({1}) == "set"'),
    "union": ("union({{1}, {2}}) == {1, 2}",),
}
IS_OTHER = {
    "is_array": "{}", "is_boolean": "1", "is_null": "false", "is_number": '"1"', "is_object": "[]", "is_set": "[]",
    "is_string": "1",
}  # fmt: skip
PROOFS |= {name: (*PROOFS[name], f"not {name}({other})") for name, other in IS_OTHER.items()}
PROOFS["is_array"] = ("is_array([1])", "not is_array({})")


def holds(condition: str) -> bool:
    interpreter = Interpreter()
    interpreter.strict_built_in_errors = True
    interpreter.add_module("p.rego", f"package p\nimport rego.v1\ndefault a := false\na if {{ {condition} }}\n")
    bundle = interpreter.build(None, ["p/a"])
    interpreter.set_input_term(json.dumps({}))
    return str(interpreter.query_bundle_entrypoint(bundle, "p/a")) == '{"expressions":[true]}'


def test_every_proven_function_has_its_proof() -> None:
    assert PROOFS.keys() == PROVEN


@pytest.mark.parametrize(("name", "condition"), [(name, proof) for name, proofs in PROOFS.items() for proof in proofs])
def test_function_answers_as_the_reference_says(name: str, condition: str) -> None:
    assert f"{name}(" in condition
    assert holds(condition)


def test_a_condition_that_does_not_hold_is_seen() -> None:
    assert not holds("count([1]) == 2")
