import json
import subprocess
from pathlib import Path

import pytest
from regopy import Interpreter

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_patterns import check_patterns
from tests.opa import need_opa

# Each with a text that the two engines answer differently about: what OPA says.
ODD_REGEX = {
    r"^rm\z": ("rm", True),
    r"\Arm": ("rm", True),
    r"^\pL$": ("a", True),
    r"^\Qa.b\E$": ("a.b", True),
    r"^[]a]+$": ("a]", True),
    r"^[^]a]$": ("b", True),
    r"^\a$": ("a", False),
}
SAME_REGEX = (
    r"^\w+\.\d{1,2}\/(?:a|b)[\]\[^-]\S*?$", "[[:alpha:]_]", r"\[]", "a[?](b)", r"\bsudo\b|[^a-z]+\\",
)  # fmt: skip


def rule(function: str, literal: str, text: str) -> str:
    return f"package p\nimport rego.v1\ndefault a := false\na if {function}({literal}, {text})\n"


def both(source: str, directory: Path) -> tuple[bool, bool]:
    """The bare library's answer, and OPA's."""
    interpreter = Interpreter()
    interpreter.add_module("p.rego", source)
    bundle = interpreter.build(None, ["p/a"])
    interpreter.set_input_term("{}")
    ours = json.loads(str(interpreter.query_bundle_entrypoint(bundle, "p/a")))["expressions"][0]
    (directory / "p.rego").write_text(source)
    command = [need_opa(), "eval", "--data", str(directory / "p.rego"), "--format=raw", "data.p.a"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return ours, json.loads(done.stdout)


@pytest.mark.parametrize("pattern", ODD_REGEX)
def test_a_pattern_that_opa_reads_differently_is_refused(tmp_path: Path, pattern: str) -> None:
    text, answer = ODD_REGEX[pattern]
    for literal in (f"`{pattern}`", json.dumps(pattern)):
        source = rule("regex.match", literal, json.dumps(text))
        with pytest.raises(PolicyInvalid, match=r"^p\.rego:4: .* in a pattern is another thing"):
            check_patterns([("p.rego", source)], "{}")
    assert both(source, tmp_path) == (not answer, answer)


@pytest.mark.parametrize("pattern", [r"(?=a)a", r"(?!a)b", r"(a)\1", "(?i)a", r"\x41"])
def test_a_pattern_that_only_one_of_them_has_is_refused(pattern: str) -> None:
    with pytest.raises(PolicyInvalid, match="in a pattern"):
        check_patterns([("p.rego", rule("regex.match", f"`{pattern}`", '"a"'))], "{}")


@pytest.mark.parametrize("pattern", SAME_REGEX)
def test_an_ordinary_pattern_passes(pattern: str) -> None:
    check_patterns([("p.rego", rule("regex.match", f"`{pattern}`", '"a"'))], "{}")
    check_patterns([("p.rego", rule("regex.match", json.dumps(pattern), '"a"'))], json.dumps({"patterns": [pattern]}))


def test_patterns_that_come_from_elsewhere_are_looked_at_too() -> None:
    call = ("p.rego", rule("regex.match", "data.patterns[_]", '"a"'))
    named = ("q.rego", "package q\n\npatterns := {`a\\z`}\n")
    with pytest.raises(PolicyInvalid, match=r"^q\.rego:3: "):
        check_patterns([call, named], "{}")
    for data in ({"patterns": [{"x": r"a\z"}]}, {r"a\z": 1}):
        with pytest.raises(PolicyInvalid, match=r"^data: "):
            check_patterns([call], json.dumps(data))


def test_text_of_a_policy_without_patterns_may_be_anything() -> None:
    check_patterns([("p.rego", "package p\na := `C:\\Apps (?)`\nb := `[^a-c]`\n")], '{"x": "C:\\\\Apps"}')


def test_a_glob_with_a_range_that_opa_reads_differently_is_refused(tmp_path: Path) -> None:
    source = rule("glob.match", '"[^a-c]", []', '"b"')
    with pytest.raises(PolicyInvalid, match=r"^p\.rego:4: '\[\^a-c\]' in a pattern"):
        check_patterns([("p.rego", source)], "{}")
    assert both(source, tmp_path) == (True, False)
    check_patterns([("p.rego", rule("glob.match", '"[!a-c][^a]", []', '"b"'))], "{}")


def test_text_that_is_no_text_is_left_to_the_compiler() -> None:
    check_patterns([("p.rego", rule("regex.match", '"\\u12"', '"a"'))], "{}")
