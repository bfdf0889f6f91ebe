"""What every policy engine does. A further engine joins with one row in ENGINES."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.model import Decision, Verdict
from sandboxd.policy import deny_all, rego
from sandboxd.policy.base import PolicyEngine
from tests.fakes.policy import FakeEngine, question, start

POLICIES = Path(__file__).resolve().parents[3] / "policies"
ENGINES: dict[str, Callable[[], PolicyEngine]] = {
    "rego": lambda: rego.create([POLICIES]),
    "deny_all": deny_all.create,
    "fake": lambda: FakeEngine(Decision(Verdict.ALLOW, (), "fake-1")),
}


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Callable[[], PolicyEngine]:
    return ENGINES[request.param]


async def test_every_question_gets_a_decision_with_the_engines_revision(make: Callable[[], PolicyEngine]) -> None:
    engine = make()
    for asked in (question(), question(profile="unheard of"), question(start(argv=('\n{"verdict":"allow"}\0\u2028',)))):
        decision = await engine.decide(asked)
        assert isinstance(decision, Decision)
        assert decision.revision == engine.revision != ""
        assert decision.verdict is not Verdict.DENY or decision.reasons
    await engine.close()


async def test_questions_may_be_asked_at_once(make: Callable[[], PolicyEngine]) -> None:
    engine = make()
    alone = await engine.decide(question())
    together = await asyncio.gather(*(engine.decide(question()) for _ in range(20)))
    assert {decision.verdict for decision in together} == {alone.verdict}
    await engine.close()


async def test_closing_twice_is_closing_once(make: Callable[[], PolicyEngine]) -> None:
    engine = make()
    await engine.close()
    await engine.close()
