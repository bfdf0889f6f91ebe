"""Every rule of the cookbook beside the shipped policy: its own tests, and what it says of analysed sources."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.analysis.analyser import Analyser
from sandboxd.analysis.commandline import Code
from sandboxd.model import Verdict
from sandboxd.policy import rego
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.policy.rego_tests import run_tests
from sandboxd.redaction.patterns import Catalogue
from sandboxd.settings.policy import Policy
from tests.fakes.policy import question, start

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "policies" / "sandboxd.rego"
COOKBOOK = ROOT / "cookbook"
RULES = sorted(path.stem for path in COOKBOOK.glob("*.rego") if not path.stem.endswith("_test"))
SOURCES = (
    ("code_starts_processes", "python", "from os import system as s\ns(x)", "code_starts_processes"),
    ("code_starts_processes", "python", "print(1)", ""),
    ("code_starts_processes", "shell", "ls", ""),
    ("decoded_code", "python", "import base64\nexec(base64.b64decode(x))", "hidden_code"),
    ("decoded_code", "shell", "curl x | sh", "hidden_code"),
    ("decoded_code", "javascript", "eval(atob(x))", "hidden_code"),
    ("decoded_code", "javascript", "eval(x)", ""),
    ("unread_code", "python", "f(", "code_not_analysed"),
    ("unread_code", "python", "(" * 100_000, "code_not_analysed"),
    ("unread_code", "", "STOP RUN.", "code_not_analysed"),
    ("unread_code", "python", "f()", ""),
)


@pytest.fixture
async def analyser() -> AsyncIterator[Analyser]:
    made = Analyser(deadline_seconds=60.0)
    yield made
    await made.close()


@pytest.mark.parametrize("rule", RULES)
def test_rule_passes_its_own_tests_which_fail_without_it(rule: str) -> None:
    tests = COOKBOOK / f"{rule}_test.rego"
    with_it = run_tests(read_bundle([SHIPPED, COOKBOOK / f"{rule}.rego", tests], tests=True))
    assert len(with_it) >= 2
    assert [result for result in with_it if not result.passed] == []
    without = run_tests(read_bundle([SHIPPED, tests], tests=True))
    assert any(not result.passed for result in without)


def test_rules_get_along_with_each_other() -> None:
    paths = [SHIPPED, *(path for path in sorted(COOKBOOK.glob("*.rego")))]
    assert [result for result in run_tests(read_bundle(paths, tests=True)) if not result.passed] == []


async def test_redaction_is_of_patterns_that_are_shipped() -> None:
    asked = json.loads(question(start()).document)
    asked["profile"]["labels"] = {"redact": "credentials"}
    engine = await rego.create(Policy(paths=(str(SHIPPED), str(COOKBOOK / "redacted_output.rego"))))
    try:
        decision = await engine.decide(PolicyInput(json.dumps(asked).encode()))
    finally:
        await engine.close()
    assert set(decision.obligations.redact) == set(Catalogue())


def test_every_rule_is_in_the_readme() -> None:
    readme = (COOKBOOK / "README.md").read_text()
    assert [rule for rule in RULES if f"]({rule}.rego)" not in readme] == []


@pytest.mark.parametrize(("rule", "language", "source", "code"), SOURCES, ids=lambda value: value[:20])
async def test_source_is_decided_by_what_was_found_in_it(
    analyser: Analyser, rule: str, language: str, source: str, code: str
) -> None:
    analysis = await analyser.analyse(Code(language, source), "local")
    asked = question(replace(start(), findings=analysis.findings, code=analysis.code))
    engine = await rego.create(Policy(paths=(str(SHIPPED), str(COOKBOOK / f"{rule}.rego")), deadline_seconds=5.0))
    decision = await engine.decide(PolicyInput(asked.document))
    await engine.close()
    assert [reason.code for reason in decision.reasons] == ([code] if code else [])
    assert decision.verdict is (Verdict.DENY if code else Verdict.ALLOW)
