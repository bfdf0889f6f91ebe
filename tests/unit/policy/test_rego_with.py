"""`with` by copies, on places where an expression may begin and end; that OPA agrees is a contract test."""

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_rules import true
from sandboxd.policy.rego_with import expand

POLICY = """package a.b

import rego.v1
import data.lib.limits
import input.y as why

default decision := "no"

decision := "yes" if allow

allow if {
	input.x == limits.most
	not data.a.b.bad
}

bad if input.inner["x"].input == data.settings.bad

bad if why == 7

f(n) := n + input.x
"""
LIB = "package lib.limits\n\nmost := 1\n"
MODULES = (("p.rego", POLICY), ("lib.rego", LIB))


def passes(body: str) -> bool:
    tests = (("t_test.rego", f'package a.b_test\n\nimport rego.v1\n\none := {{"x": 1}}\n\ntest_it if {body}\n'),)
    expanded, copies = expand(MODULES, tests)
    assert "with" not in {word for _, source in expanded for word in source.split()}
    return bool(true([*MODULES, *expanded, *copies], '{"settings": {"bad": 2}}', {"it": ("a", "b_test", "test_it")}))


@pytest.mark.parametrize(
    "body",
    [
        'data.a.b.decision == "yes" with input as {"x": 1}',
        'data.a.b.decision == "yes" with input as one',
        '{\n\tdata.a.b.decision == "yes" with input as {\n\t\t"x": 1,\n\t}\n\tdata.a.b.decision == "no"\n}',
        '{ data.a.b.decision == "no"; data.a.b.decision == "yes" with input as one; true }',
        '{\n\tanswer := data.a.b.decision with input as one\n\tanswer ==\n\t\t"yes"\n}',
        '{\n\tdata.a.b.decision ==\n\t\t"yes" with input as one\n}',
        "{\n\tnot data.a.b.allow with input as {}\n\tdata.a.b.allow with input as one\n}",
        "{\n\tdata.a.b.f(2) == 3 with input as one\n}",
        "{\n\tcount([1 | data.a.b.allow with input as one]) == 1\n}",
        'not data.a.b.allow with input as {"x": 1, "inner": {"x": {"input": 2}}}',
        'data.a.b.allow with input as {"x": 1, "inner": {"x": {"input": data.settings.bad + 1}}}',
        'not data.a.b.allow with input as {"x": 1, "y": 7}',
        "{\n\tsome n in [1]\n\tdata.a.b.f(n) == 2 with input as one\n}",
        "{\n\tdata.settings.bad == 2 with input as one # a comment\n}",
    ],
)
def test_test_that_holds_passes_and_its_contrary_does_not(body: str) -> None:
    assert passes(body)
    assert not passes(
        f"{{\n\tfalse\n\t{body}\n}}" if not body.startswith("{") else body.replace("{", "{\n\tfalse\n", 1)
    )


def test_wrong_expectations_fail() -> None:
    for body in (
        'data.a.b.decision == "no" with input as one',
        "data.a.b.bad with input as one",
        "data.a.b.allow with input as {}",
        "not data.a.b.allow with input as one",
        "data.a.b.f(2) == 4 with input as one",
    ):
        assert not passes(body)


@pytest.mark.parametrize(
    "body",
    [
        "data.a.b.allow with input.x as 1",
        "data.a.b.allow with data.lib.limits.most as 1",
        "data.a.b.allow with input as one with data.settings.bad as 1",
        "data.a.b.allow with input",
    ],
)
def test_what_replaces_anything_but_the_whole_input_is_refused_with_its_line(body: str) -> None:
    with pytest.raises(PolicyInvalid, match=r"t_test\.rego:7: the embedded engine can replace the whole input alone"):
        passes(body)


def test_value_may_come_from_another_module() -> None:
    for line, name in (("import data.given", "given.one"), ("import data.given as g", "g.one"), ("", "data.given.one")):
        text = f"package t\n\nimport rego.v1\n{line}\n\ntest_it if data.a.b.allow with input as {name}\n"
        given = ("given_test.rego", 'package given\n\none := {"x": 1}\n')
        expanded, copies = expand(MODULES, (("t_test.rego", text), given))
        assert true([*MODULES, *expanded, *copies], '{"settings": {"bad": 2}}', {"it": ("t", "test_it")})


def test_value_that_uses_a_variable_is_refused_with_its_line() -> None:
    """The engine would take it for whatever makes the test pass."""
    for body in ('{ some v in [1]; data.a.b.allow with input as {"x": v} }', "data.a.b.allow with input as v"):
        with pytest.raises(PolicyInvalid, match=r"t_test\.rego:7: 'v' is a variable"):
            passes(body)


def test_computed_path_into_the_policy_is_refused() -> None:
    with pytest.raises(PolicyInvalid, match=r"t_test\.rego:7: `data` needs a name"):
        passes('data["a"].b.allow with input as one')
