"""What every policy engine does, and every one that has a policy. A further engine joins with one row in ENGINES."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.model import Decision, Reason, Verdict
from sandboxd.policy import deny_all, opa, rego
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import MAX_DOCUMENT_BYTES, PolicyInput
from sandboxd.settings.policy import Opa, Policy
from tests.fakes.policy import FakeEngine, question, start
from tests.opa import opa_on_socket

POLICIES = Path(__file__).resolve().parents[3] / "policies"
AMPLE = 60.0  # seconds
Made = AbstractAsyncContextManager[PolicyEngine]


@asynccontextmanager
async def closing(engine: PolicyEngine) -> AsyncIterator[PolicyEngine]:
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[PolicyEngine]:
    async with closing(await rego.create(Policy(paths=(str(directory),), deadline_seconds=AMPLE))) as engine:
        yield engine


@asynccontextmanager
async def remote(directory: Path) -> AsyncIterator[PolicyEngine]:
    with opa_on_socket([directory]) as server:
        settings = Policy(engine="opa", opa=Opa(url=server.url), deadline_seconds=AMPLE)
        async with closing(await opa.create(settings)) as engine:
            yield engine


@asynccontextmanager
async def denying(_directory: Path) -> AsyncIterator[PolicyEngine]:
    async with closing(await deny_all.create(Policy(engine="deny_all"))) as engine:
        yield engine


@asynccontextmanager
async def fake(_directory: Path) -> AsyncIterator[PolicyEngine]:
    async with closing(FakeEngine(Decision(Verdict.ALLOW, (), "fake-1"))) as engine:
        yield engine


# By name: how to make it with the policy of a directory.
WITH_POLICY: dict[str, Callable[[Path], Made]] = {"rego": embedded, "opa": remote}
ENGINES: dict[str, Callable[[Path], Made]] = {**WITH_POLICY, "deny_all": denying, "fake": fake}


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[PolicyEngine]:
    async with ENGINES[request.param](POLICIES) as made:
        yield made


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


# Engines that have a policy.

ALLOW = 'decision := {"verdict": "allow"}'
# No engine takes a policy that has no answer to this one.
HEAD = f'package sandboxd\nimport rego.v1\n{ALLOW} if input.action.type == "profile.use"\n'
OTHERWISE_DENY = 'default decision := {"verdict": "deny"}\n'


@pytest.fixture(params=WITH_POLICY)
def ruled(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Made]:
    """An engine with these rules."""

    def make(rules: str) -> Made:
        (tmp_path / "p.rego").write_text(HEAD + rules)
        return WITH_POLICY[request.param](tmp_path)

    return make


Ruled = Callable[[str], Made]


def code(decision: Decision) -> str:
    assert decision.verdict is Verdict.DENY
    return decision.reasons[0].code


async def test_the_policy_decides_on_the_input(ruled: Ruled) -> None:
    rules = 'decision := {"verdict": v} if { v := {"/bin/true": "allow", "/bin/false": "deny"}[input.action.argv[0]] }'
    async with ruled(f'default decision := {{"verdict": "warn"}}\n{rules}') as made:
        verdicts = [
            (await made.decide(question(start(argv=(argv,))))).verdict for argv in ("/bin/true", "/bin/false", "x")
        ]
        assert verdicts == [Verdict.ALLOW, Verdict.DENY, Verdict.WARN]


async def test_everything_that_a_decision_may_hold_arrives(ruled: Ruled) -> None:
    rules = """
        decision := {"verdict": "transform", "reasons": reasons, "message_for_agent": "no", "ttl_seconds": 1.5,
                     "obligations": obligations} if input.action.argv
        reasons := [{"code": "c", "message": "m é 😀"}]
        obligations := {"limits": {"pids": 7}, "runtime_floor": "gvisor", "redact": ["env"], "approval": approval}
        approval := {"ttl_seconds": 60, "approvers": ["a"]}
    """
    async with ruled(rules) as made:
        decision = await made.decide(question())
    assert (decision.verdict, decision.reasons) == (Verdict.TRANSFORM, (Reason("c", "m é 😀"),))
    assert (decision.message_for_agent, decision.ttl_seconds) == ("no", 1.5)
    assert decision.obligations.limits == (("pids", 7.0),)
    assert (decision.obligations.runtime_floor, decision.obligations.redact) == ("gvisor", ("env",))
    approval = decision.obligations.approval
    assert approval is not None and (approval.ttl_seconds, approval.approvers) == (60.0, ("a",))


async def test_a_simple_policy_says_true_and_false(ruled: Ruled) -> None:
    async with ruled('default decision := false\ndecision if input.action.argv[0] == "/bin/true"') as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        assert code(await made.decide(question(start(argv=("x",))))) == "policy_denied"


async def test_answers_of_questions_asked_at_once_are_not_mixed_up(ruled: Ruled) -> None:
    async with ruled(f'{ALLOW[:-1]}, "message_for_agent": input.action.argv[0]}} if input.action.argv') as made:
        asked = [str(number) for number in range(200)]
        decisions = await asyncio.gather(*(made.decide(question(start(argv=(argv,)))) for argv in asked))
        assert [decision.message_for_agent for decision in decisions] == asked


async def test_an_input_without_an_answer_is_denied_as_undefined(ruled: Ruled) -> None:
    async with ruled(f'{ALLOW} if input.action.argv[0] == "/bin/true"') as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        assert code(await made.decide(question(start(argv=("x",))))) == "policy_undefined"


@pytest.mark.parametrize("answer", ['{"verdict": "maybe"}', '"allow"', "1", "null", '[{"verdict": "allow"}]', "{1, 2}"])
async def test_an_answer_of_another_shape_is_denied_as_malformed(ruled: Ruled, answer: str) -> None:
    async with ruled(
        f'decision := {answer} if input.action.argv[0] == "x"\n{ALLOW} if input.action.argv[0] != "x"'
    ) as made:
        assert code(await made.decide(question(start(argv=("x",))))) == "policy_malformed"


async def test_rules_that_contradict_each_other_deny(ruled: Ruled) -> None:
    rules = f'{ALLOW} if input.action.argv[0]\ndecision := {{"verdict": "warn"}} if input.action.argv[0] == "x"'
    async with ruled(rules) as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        assert code(await made.decide(question(start(argv=("x",))))) == "policy_unavailable"


async def test_a_builtin_that_fails_denies_and_is_not_silently_undefined(ruled: Ruled) -> None:
    rules = (
        'bad if concat(",", input.action.argv[0]) == "x"\nordinary if input.action.argv[0] == "/bin/true"\n'
        f"{ALLOW} if ordinary\n{ALLOW} if {{ input.action.argv; not ordinary; not bad }}"
    )
    async with ruled(rules) as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        assert code(await made.decide(question(start(argv=("x",))))) == "policy_unavailable"


@pytest.mark.parametrize(
    ("value", "literal"),
    [("a\0b", r'"a\u0000b"'), ('a"b', r'"a\"b"'), ("a\\b", r'"a\\b"'), ("a\nb", r'"a\nb"'), ("é✓😀", '"é✓😀"')],
)
async def test_text_of_the_input_arrives_whole(ruled: Ruled, value: str, literal: str) -> None:
    async with ruled(f"{OTHERWISE_DENY}{ALLOW} if input.action.argv[0] == {literal}") as made:
        assert (await made.decide(question(start(argv=(value,))))).verdict is Verdict.ALLOW
        assert (await made.decide(question(start(argv=("a",))))).verdict is Verdict.DENY


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63), 2**63 + 1, 10**30 + 1])
async def test_integers_arrive_whole(ruled: Ruled, number: int) -> None:
    document = json.loads(question().document)
    async with ruled(f"{OTHERWISE_DENY}{ALLOW} if input.action.stdin_bytes == {number}") as made:
        for value, verdict in ((number, Verdict.ALLOW), (number - 1, Verdict.DENY)):
            document["action"]["stdin_bytes"] = value
            assert (await made.decide(PolicyInput(json.dumps(document).encode()))).verdict is verdict


async def test_an_input_that_is_too_large_is_denied_and_not_asked(ruled: Ruled) -> None:
    async with ruled(ALLOW) as made:
        assert code(await made.decide(question(start(argv=("x" * MAX_DOCUMENT_BYTES,))))) == "policy_unavailable"


async def test_a_closed_engine_denies_and_repeats_nothing(ruled: Ruled) -> None:
    async with ruled(ALLOW) as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        await made.close()
        assert (await made.decide(question())).verdict is Verdict.DENY
        assert not made.repeatable


async def test_the_revision_is_the_bundles(ruled: Ruled, tmp_path: Path) -> None:
    (tmp_path / ".manifest").write_text('{"revision": "2026-11-23.1"}')
    async with ruled(ALLOW) as made:
        assert "2026-11-23.1" in made.revision
        assert (await made.decide(question())).revision == made.revision


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("other := 1", "'execution.start'.*has no answer"),
        ("decision := 1", "'execution.start'.*not a decision"),
        (f'{ALLOW} if input.action.argv\ndecision := "x" if not input.action.argv', "'file.put'.*not a decision"),
        (f'{ALLOW} if input.action.argv\ndecision := concat(",", input.action.path)', "'file.put'.*with a decision"),
    ],
)
async def test_a_policy_that_does_not_answer_its_samples_is_refused(ruled: Ruled, rules: str, message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        async with ruled(rules):
            pass
