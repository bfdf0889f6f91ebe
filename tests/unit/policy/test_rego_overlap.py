import pytest
from regopy import Interpreter

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_overlap import check_overlap

RULES = """package sandboxd
import rego.v1
default decision := false
decision := true if { some cfg in input.x; limit == 1 }
  indented := 1
partial contains "x"
f(x) := x
ref.head := 1
"""


def check(data: str, source: str = RULES) -> None:
    check_overlap([("p.rego", source)], data)


def test_control_the_bare_library_takes_the_data_for_the_answer() -> None:
    interpreter = Interpreter()
    interpreter.add_module("p.rego", RULES)
    interpreter.add_data_json('{"sandboxd": {"decision": true}}')
    bundle = interpreter.build(None, ["sandboxd/decision"])
    interpreter.set_input_term('{"x": []}')
    assert str(interpreter.query_bundle_entrypoint(bundle, "sandboxd/decision")) == '{"expressions":[true]}'


@pytest.mark.parametrize(
    "data", ["{}", '{"sandboxd": {"cfg": {"decision": 1}, "limits": 5}}', '{"other": {"decision": 1}}']
)
def test_data_beside_the_rules_passes(data: str) -> None:
    check(data)


@pytest.mark.parametrize(("name", "line"), [("decision", 3), ("indented", 5), ("partial", 6), ("f", 7), ("ref", 8)])
def test_data_in_the_place_of_a_rule_is_refused(name: str, line: int) -> None:
    with pytest.raises(PolicyInvalid, match=rf"^p\.rego:{line}: a data file defines data\.sandboxd\.{name},"):
        check(f'{{"sandboxd": {{"{name}": {{}}}}}}')


@pytest.mark.parametrize("data", ['{"a": 1}', '{"a": {"b": []}}'])
def test_a_value_in_the_place_of_a_package_is_refused(data: str) -> None:
    with pytest.raises(PolicyInvalid, match=r"^p\.rego: a data file gives data\.a(\.b)? a value"):
        check(data, 'package a["b"].c\nx := 1\n')


def test_numbers_of_any_length_are_only_data() -> None:
    check(f'{{"x": {"1" * 5000}}}')
