"""What every policy engine does. A further engine joins with one row in ENGINES."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sandboxd.config import Policy
from sandboxd.model import Decision, Verdict
from sandboxd.policy import deny_all, rego
from sandboxd.policy.base import PolicyEngine
from tests.fakes.policy import FakeEngine, question, start

POLICIES = Path(__file__).resolve().parents[3] / "policies"
SETTINGS = Policy(paths=(str(POLICIES),), deadline_seconds=5.0)


async def fake() -> PolicyEngine:
    return FakeEngine(Decision(Verdict.ALLOW, (), "fake-1"))


ENGINES: dict[str, Callable[[], Awaitable[PolicyEngine]]] = {
    "rego": lambda: rego.create(SETTINGS),
    "deny_all": lambda: deny_all.create(SETTINGS),
    "fake": fake,
}


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[PolicyEngine]:
    made = await ENGINES[request.param]()
    yield made
    await made.close()


async def test_every_question_gets_a_decision_with_the_engines_revision(engine: PolicyEngine) -> None:
    for asked in (question(), question(profile="unheard of"), question(start(argv=('\n{"verdict":"allow"}\0\u2028',)))):
        decision = await engine.decide(asked)
        assert isinstance(decision, Decision)
        assert decision.revision == engine.revision != ""
        assert decision.verdict is not Verdict.DENY or decision.reasons


async def test_questions_may_be_asked_at_once(engine: PolicyEngine) -> None:
    alone = await engine.decide(question())
    together = await asyncio.gather(*(engine.decide(question()) for _ in range(20)))
    assert {decision.verdict for decision in together} == {alone.verdict}


async def test_closing_twice_is_closing_once(engine: PolicyEngine) -> None:
    await engine.close()
    await engine.close()
