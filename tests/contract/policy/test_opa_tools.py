"""The shipped bundle under OPA's own tools: its tests pass, and each name in it is one that an input has."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.opa import need_opa

POLICIES = Path(__file__).resolve().parents[3] / "policies"
INPUT_SCHEMA = POLICIES / "schemas" / "input.json"
SHIPPED = sorted(
    path.relative_to(POLICIES) for path in POLICIES.rglob("*.rego") if not path.name.endswith("_test.rego")
)


def opa(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([need_opa(), *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_the_bundles_own_tests_pass_in_opa() -> None:
    done = opa("test", POLICIES)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "PASS" in done.stdout


@pytest.mark.parametrize("schema", [INPUT_SCHEMA, INPUT_SCHEMA.parent], ids=["file", "directory"])
def test_every_rule_is_right_about_its_input(schema: Path) -> None:
    done = opa("check", "--schema", schema, POLICIES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("file", SHIPPED, ids=str)
@pytest.mark.parametrize("wrong", ["input.no_such_part", "input.action.no_such_part", "input.caller.no_such_part"])
def test_control_a_rule_that_is_wrong_about_its_input_is_found(file: Path, wrong: str, tmp_path: Path) -> None:
    """With the schema's file: given its directory, OPA looks only at what is annotated with it."""
    copy = tmp_path / "policies"
    shutil.copytree(POLICIES, copy)
    with (copy / file).open("a") as rules:
        rules.write(f"\nwrong_about_its_input if {wrong} == 1\n")
    done = opa("check", "--schema", INPUT_SCHEMA, copy)
    assert done.returncode != 0
    assert f"undefined ref: {wrong}" in done.stderr + done.stdout
