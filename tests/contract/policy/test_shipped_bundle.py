"""The shipped bundle: every case of its own tests holds, in the embedded engine as in the daemon."""

import json
from pathlib import Path
from typing import Any

import pytest
from regopy import Interpreter

from sandboxd.model import Verdict
from sandboxd.policy import rego
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.policy.rego_tests import run_tests
from sandboxd.settings.policy import Policy
from tests.fakes.policy import question, start

POLICIES = Path(__file__).resolve().parents[3] / "policies"
SETTINGS = Policy(paths=(str(POLICIES),), deadline_seconds=5.0)


def cases() -> dict[str, dict[str, Any]]:
    interpreter = Interpreter()
    interpreter.add_module("cases", (POLICIES / "tests" / "cases_test.rego").read_text())
    found: dict[str, dict[str, Any]] = json.loads(str(interpreter.query("data.sandboxd_test.cases")))["expressions"][0]
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
async def test_case_of_the_bundles_own_tests_holds(name: str) -> None:
    case = CASES[name]
    engine = await rego.create(SETTINGS)
    decision = await engine.decide(PolicyInput(json.dumps(case["input"]).encode()))
    await engine.close()
    assert decision.verdict == case["verdict"]
    assert [reason.code for reason in decision.reasons] == case["codes"]
    if decision.verdict is Verdict.DENY:
        assert decision.reasons and decision.message_for_agent
        assert all(reason.code and reason.message for reason in decision.reasons)


def test_the_bundle_has_cases_and_tests_do_not_run_in_the_daemon() -> None:
    assert {case["verdict"] for case in CASES.values()} == {"allow", "deny"}
    assert [name for name, _ in read_bundle([POLICIES]).modules] == ["sandboxd.rego"]


async def test_the_engine_allows_a_shipped_profile_and_names_what_it_denies() -> None:
    engine = await rego.create(SETTINGS)
    assert (await engine.decide(question())).verdict is Verdict.ALLOW
    denied = await engine.decide(question(start(env_names=("AWS_SECRET_ACCESS_KEY",))))
    assert (denied.verdict, denied.reasons[0].code) == (Verdict.DENY, "credential_in_env")
    assert "AWS_SECRET_ACCESS_KEY" in denied.message_for_agent
    await engine.close()


def test_the_bundles_own_tests_pass_in_the_embedded_engine_and_each_case_has_one() -> None:
    results = run_tests(read_bundle([POLICIES], tests=True))
    assert len(results) >= 40
    assert [result for result in results if not result.passed] == []
    tests = (POLICIES / "tests" / "sandboxd_test.rego").read_text()
    assert [name for name in CASES if f'with input as cases["{name}"].input' not in tests] == []
