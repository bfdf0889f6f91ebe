import json

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_rules import holding, rules, true

POLICY = """# of a test
package a["b-c"].d

import rego.v1

default x := 1

x := 2 if {
	input.x == 2
	f(input.x)
}

x := false if
	input.x == 3

f(value) if value > 1

names := {
	"one",
}

deny contains "no" if { input.x == 2 } # why
deny contains "never" if { input.y }

keyed["k"] := 1 if input.x == 3

both if {
	input.x == 2
} else := "other" if {
	input.x == 3
}
"""
MODULES = (("p.rego", POLICY),)


def held(document: object) -> list[tuple[int, str]]:
    return [(rule.line, rule.name) for rule in holding(MODULES, "{}", json.dumps(document).encode())]


def test_rules_are_found_with_their_lines_and_kinds() -> None:
    found = rules(MODULES)
    assert [(rule.line, rule.name) for rule in found] == [
        (6, "x"),
        (8, "x"),
        (13, "x"),
        (16, "f"),
        (18, "names"),
        (22, "deny"),
        (23, "deny"),
        (25, "keyed"),
        (27, "both"),
    ]
    assert {rule.full_name for rule in found if rule.is_partial} == {"a.b-c.d.deny", "a.b-c.d.keyed"}
    assert [rule.name for rule in found if rule.is_function or rule.is_default or not rule.is_conditional] == [
        "x",
        "f",
        "names",
    ]
    assert found[5].source == 'deny contains "no" if { input.x == 2 }'


def test_of_several_rules_by_one_name_the_one_that_holds_is_told() -> None:
    assert held({"x": 2}) == [(8, "x"), (22, "deny"), (27, "both")]
    assert held({"x": 3}) == [(13, "x"), (25, "keyed"), (27, "both")]
    assert held({"y": 1}) == [(23, "deny")]
    assert held({}) == []


def test_what_cannot_be_evaluated_is_said() -> None:
    broken = [("p.rego", 'package a\n\nx := to_number("no") if true\n')]
    with pytest.raises(PolicyInvalid, match="it cannot be evaluated"):
        holding(broken, "{}", b"{}")
    with pytest.raises(PolicyInvalid, match="it cannot be evaluated"):
        true([("p.rego", "package a\n\nx := {")], "{}", {"x": ("a", "x")})


def test_true_rules_are_told_from_false_and_undefined_ones() -> None:
    modules = [("p.rego", 'package a\n\nyes := data.given\n\nno := false\n\nnever if input.x\n\nword := "true"\n')]
    names = {name: ("a", name) for name in ("yes", "no", "never", "word")}
    assert true(modules, '{"given": true}', names) == {"yes"}
