"""What is refused, and what is not, is what a real OPA and the embedded engine answer alike: both are asked."""

import json
import subprocess
from pathlib import Path

import pytest
from regopy import Interpreter

from sandboxd.errors import PolicyInvalid
from sandboxd.policy import rego
from sandboxd.policy.rego_negation import check_negations
from sandboxd.settings.policy import Policy
from tests.opa import need_opa

HEAD = "package sandboxd\nimport rego.v1\n"
# With `x` missing from the input.
DIFFERENT = [
    "input.x in {1}",
    "input.x in [1]",
    '"a" in input.x',
    'startswith(input.x, "a")',
    "input.x < 3",
    "input.x != 1",
    "input.o[input.x]",
    '{"a": 1}[input.x]',
    "known[input.x]",
    "count(input.x) == 0",
    "number(input.x)",
    "number(input.o.x)",
    "input.n + input.x == 3",
    'object.get(input.x, "y", 1) == 1',
    'contains(sprintf("%s", [input.x]), "a")',
    "input.x == [input.y]",
]
ALIKE = [
    "input.x",
    "input.x.y[0]",
    'input["x"]',
    'input.o["a.b"].c',
    "input.x == 1",
    "input.x == -1",
    'input.x == "a b"',
    "input.x == `a`",
    "input.x = 1",
    "1 == input.x",
    "input.x == input.n",
    "input.x == input.y",
    "input.x == named",
    "named",
    "number(1)",
    "1 in known",
]
RULES = "number(v) if v == 1\nknown := {1}\nnamed if input.x == 1\n"


def answers(expression: str, directory: Path) -> tuple[bool, bool]:
    """Whether `not` before it holds: in the embedded engine, and in OPA."""
    source = f"{HEAD}{RULES}default answer := false\nanswer if {{ not {expression} }}\n"
    document = '{"o": {}, "n": 1}'
    interpreter = Interpreter()
    interpreter.add_module("p.rego", source)
    bundle = interpreter.build(None, ["sandboxd/answer"])
    interpreter.set_input_term(document)
    embedded = json.loads(str(interpreter.query_bundle_entrypoint(bundle, "sandboxd/answer")))["expressions"][0]
    file = directory / "p.rego"
    file.write_text(source)
    command = [need_opa(), "eval", "--data", str(file), "--stdin-input", "--format=raw", "data.sandboxd.answer"]
    remote = subprocess.run(command, input=document, capture_output=True, text=True, check=True).stdout
    return embedded, remote.strip() == "true"


def refused(expression: str) -> bool:
    try:
        check_negations([("p.rego", f"{HEAD}{RULES}a if {{\n\tnot {expression}\n}}\n")])
    except PolicyInvalid:
        return True
    return False


@pytest.mark.parametrize("expression", DIFFERENT)
def test_what_differs_is_refused(expression: str, tmp_path: Path) -> None:
    assert answers(expression, tmp_path) == (True, False)
    assert refused(expression)


@pytest.mark.parametrize("expression", ALIKE)
def test_what_is_alike_is_taken(expression: str, tmp_path: Path) -> None:
    embedded, remote = answers(expression, tmp_path)
    assert embedded == remote
    assert not refused(expression)


@pytest.mark.parametrize(
    "body",
    [
        "{ not input.a in {1}; true }",
        "{ true; not input.a in {1} }",
        "{\n\tnot input.a in {1}\n}",
        "{\n\tnot input.a in\n\t\t{1}\n}",
        "{\n\tnot startswith(\n\t\tinput.a,\n\t\t`x`,\n\t)\n}",
        "{ count([1 | not input.a in {1}]) > 0 }",
        "not input.a in {1}",
    ],
)
def test_it_is_found_wherever_it_stands(body: str) -> None:
    with pytest.raises(PolicyInvalid, match=r"^p\.rego:\d+: 'not (input\.a in|startswith)"):
        check_negations([("p.rego", f"{HEAD}a if {body}\n")])


@pytest.mark.parametrize(
    "body",
    [
        "{\n\tnot input.a\n\tinput.b in {1}\n}",
        "{ not input.a; input.b in {1} }",
        "{ not b } # not input.a in {1}",
        '{ x == "not input.a in {1}" }',
        "{\n\tnot some_rule with input as {}\n\tinput.a in {1}\n}",
    ],
)
def test_what_follows_it_is_no_part_of_it(body: str) -> None:
    check_negations([("p.rego", f"{HEAD}a if {body}\n")])


async def test_the_engine_refuses_it_at_load_and_takes_it_as_a_rule_of_its_own(tmp_path: Path) -> None:
    policy = Policy(paths=(str(tmp_path),), deadline_seconds=60.0)
    (tmp_path / "p.rego").write_text(f"{HEAD}default decision := true\ndecision := false if not input.x in {{1}}\n")
    with pytest.raises(PolicyInvalid, match=r"p\.rego:4: .* write `not holds`"):
        await rego.create(policy)
    rules = "holds if input.x in {1}\ndefault decision := true\ndecision := false if not holds\n"
    (tmp_path / "p.rego").write_text(HEAD + rules)
    await (await rego.create(policy)).close()
