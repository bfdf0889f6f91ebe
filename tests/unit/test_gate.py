import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.action import ExecutionStart, NetConnect, SandboxPause, SecretUse
from sandboxd.approval.binding import Content
from sandboxd.errors import PolicyDenied, Unenforceable
from sandboxd.gate import Gate, Subject, require_allowed
from sandboxd.model import Approval, Caller, Decision, Isolation, Obligations, Reason, Verdict
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts, Seen
from tests.fakes.approvals import BOB, Office
from tests.fakes.clock import FakeClock
from tests.fakes.policy import CALLER, FakeEngine, start

PROFILE = ProfileFacts("default", "d" * 64, (("team", "a"),))
SANDBOX = SandboxFacts("0" * 32, "process")
SUBJECT = Subject(PROFILE, SANDBOX)
ALLOW = Decision(Verdict.ALLOW, (), "r1")


async def decide(answer: object) -> Decision:
    return await Gate(FakeEngine(answer), node="n", clock=lambda: 1.25).decide(start(), CALLER, SUBJECT)


@pytest.mark.parametrize("verdict", [Verdict.ALLOW, Verdict.WARN, Verdict.DENY])
async def test_verdict_passes_with_its_reasons(verdict: Verdict) -> None:
    decision = await decide(Decision(verdict, (Reason("c", "m"),), "r1"))
    assert (decision.verdict, decision.reasons, decision.revision) == (verdict, (Reason("c", "m"),), "r1")


async def test_transform_passes_with_its_obligations() -> None:
    obligations = Obligations((("wall_seconds", 1.0),), Isolation.GVISOR, ("stdout",))
    decision = await decide(Decision(Verdict.TRANSFORM, (), "r1", obligations=obligations))
    assert (decision.verdict, decision.obligations) == (Verdict.TRANSFORM, obligations)


async def test_escalation_is_denied_while_nobody_can_approve() -> None:
    decision = await decide(Decision(Verdict.ESCALATE, (Reason("c", "m"),), "r1"))
    assert decision.verdict is Verdict.DENY
    assert [reason.code for reason in decision.reasons] == ["approval_unavailable", "c"]


@pytest.mark.parametrize("verdict", [Verdict.ALLOW, Verdict.WARN, Verdict.TRANSFORM])
async def test_an_approval_that_is_demanded_beside_another_verdict_is_not_passed_over(verdict: Verdict) -> None:
    obligations = Obligations(approval=Approval(60.0, ("role:lead",)))
    decision = await decide(Decision(verdict, (), "r1", obligations=obligations, ttl_seconds=60.0))
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "approval_unavailable")
    assert decision.ttl_seconds == 0


@pytest.mark.parametrize("verdict", [Verdict.ESCALATE, Verdict.ALLOW, Verdict.WARN, Verdict.TRANSFORM])
async def test_what_is_left_to_people_goes_ahead_once_they_agree(verdict: Verdict, tmp_path: Path) -> None:
    obligations = Obligations((("wall_seconds", 1.0),), approval=Approval(60.0, (), 1))
    decision = Decision(verdict, (Reason("c", "m"),), "r1", obligations=obligations, ttl_seconds=60.0)
    office = Office(tmp_path)
    engine = FakeEngine(decision, revision=decision.revision, repeatable=True)
    gate = Gate(engine, approvals=office.approvals)
    for _ in range(2):
        parked = await gate.decide(start(), CALLER, SUBJECT)
        assert (parked.verdict, parked.reasons[0].code) == (Verdict.DENY, "approval_required")
        assert json.loads(parked.input_json)["action"]["type"] == "execution.start"
        await office.approve(parked.approval_id, BOB)
        granted = await gate.decide(start(), CALLER, Subject(PROFILE, replace(SANDBOX, id="1" * 32)))
        assert granted.verdict is (Verdict.ALLOW if verdict is Verdict.ESCALATE else verdict)
        assert granted.obligations == Obligations((("wall_seconds", 1.0),))
        assert granted.approval_id == parked.approval_id
        assert json.loads(granted.input_json)["sandbox"]["id"] == "1" * 32
    assert len(engine.asked) == 4, "policy is asked each time, whatever it marks"


PARKED = replace(start(), env_names=("APP",), files=("a.txt",))


@pytest.mark.parametrize(
    ("action", "caller", "subject", "revision"),
    [
        (replace(PARKED, argv=("/bin/true", "")), CALLER, SUBJECT, "r1"),
        (replace(PARKED, env_names=("APQ",)), CALLER, SUBJECT, "r1"),
        (replace(PARKED, files=("b.txt",)), CALLER, SUBJECT, "r1"),
        (replace(PARKED, stdin_bytes=1), CALLER, SUBJECT, "r1"),
        (replace(PARKED, network="loopback"), CALLER, SUBJECT, "r1"),
        (replace(PARKED, limits=replace(PARKED.limits, pids=65)), CALLER, SUBJECT, "r1"),
        (PARKED, replace(CALLER, subject="uid:1"), SUBJECT, "r1"),
        (PARKED, replace(CALLER, tenant="other"), SUBJECT, "r1"),
        (PARKED, CALLER, Subject(replace(PROFILE, digest="e" * 64), SANDBOX), "r1"),
        (PARKED, CALLER, Subject(PROFILE, replace(SANDBOX, runtime="gvisor")), "r1"),
        (PARKED, CALLER, Subject(PROFILE, SANDBOX, lambda: Content(b"other contents")), "r1"),
        (PARKED, CALLER, SUBJECT, "r2"),
    ],
)
async def test_a_grant_does_not_survive_one_change(
    action: ExecutionStart, caller: Caller, subject: Subject, revision: str, tmp_path: Path
) -> None:
    office = Office(tmp_path)
    gate = Gate(FakeEngine(Decision(Verdict.ESCALATE, (), "r1")), approvals=office.approvals)
    gate.sightings.begin(SANDBOX.id)
    await office.approve((await gate.decide(PARKED, CALLER, SUBJECT)).approval_id, BOB)
    gate.replace(FakeEngine(Decision(Verdict.ESCALATE, (), revision)))
    other = await gate.decide(action, caller, subject)
    assert (other.verdict, other.reasons[0].code) == (Verdict.DENY, "approval_required")
    gate.replace(FakeEngine(Decision(Verdict.ESCALATE, (), "r1")))
    assert (await gate.decide(PARKED, CALLER, SUBJECT)).verdict is Verdict.ALLOW, "the control"


async def test_what_is_carried_is_looked_at_only_where_people_decide() -> None:
    def never() -> Content:
        raise AssertionError("it costs what is hashed")

    subject = Subject(PROFILE, SANDBOX, never)
    assert (await Gate(FakeEngine(ALLOW)).decide(start(), CALLER, subject)).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (RuntimeError("secret detail"), "policy_unavailable"),
        (OSError(5, "broken"), "policy_unavailable"),
        (TimeoutError(), "policy_timeout"),
        (None, "policy_malformed"),
        (True, "policy_malformed"),
        ({"verdict": "allow"}, "policy_malformed"),
        (replace(ALLOW, revision=""), "policy_malformed"),
        (replace(ALLOW, verdict="allow"), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, reasons=None), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, reasons=("c",)), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, message_for_agent=None), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, ttl_seconds="60"), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, ttl_seconds=float("nan")), "policy_malformed"),
        (replace(ALLOW, ttl_seconds=-1.0), "policy_malformed"),
        (replace(ALLOW, obligations=None), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, obligations=Obligations((("no_such_limit", 1.0),))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations((("idle_seconds", 0.0),))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations((("wall_seconds", float("inf")),))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations((("pids", True),))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations(approval={})), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, obligations=Obligations(runtime_floor="gvisor")), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, obligations=Obligations(approval=Approval(0.0, ()))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations(approval=Approval(float("inf"), ()))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations(approval=Approval(1.0, (), 0))), "policy_malformed"),
        (replace(ALLOW, obligations=Obligations(approval=Approval(1.0, "a"))), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, obligations=Obligations(redact="jwt")), "policy_malformed"),  # type: ignore[arg-type]
        (replace(ALLOW, obligations=Obligations(redact=(7,))), "policy_malformed"),  # type: ignore[arg-type]
    ],
    ids=str,
)
async def test_whatever_is_wrong_with_the_engine_is_a_deny(answer: object, code: str) -> None:
    decision = await decide(answer)
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, code)
    assert decision.revision
    assert "secret detail" not in str(decision)


def test_redaction_is_demanded_of_patterns_that_are_known_and_of_actions_that_have_an_output() -> None:
    demanding = replace(ALLOW, obligations=Obligations(redact=("jwt", "theirs")))
    require_allowed(demanding, {"jwt", "theirs", "more"})
    for redactable, unknown in (({"jwt"}, "['theirs']"), ((), "['jwt', 'theirs']")):
        with pytest.raises(Unenforceable) as caught:
            require_allowed(demanding, redactable)
        assert caught.value.reason == "obligation_unsupported"
        assert unknown in caught.value.message


async def test_an_action_that_is_not_text_is_denied_without_asking() -> None:
    engine = FakeEngine()
    decision = await Gate(engine).decide(start(argv=("\ud800",)), CALLER, SUBJECT)
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_malformed")
    assert engine.asked == []


async def test_an_engine_that_never_answers_is_denied() -> None:
    class Silent(FakeEngine):
        async def decide(self, document: PolicyInput) -> Decision:
            await asyncio.Event().wait()
            return ALLOW

    decision = await Gate(Silent(), deadline_seconds=0.0).decide(start(), CALLER, SUBJECT)
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_timeout")


async def test_the_decision_carries_the_input_it_was_taken_on() -> None:
    decision = await decide(ALLOW)
    document = json.loads(decision.input_json)
    assert document["profile"] == {"name": "default", "digest": "d" * 64, "labels": {"team": "a"}}
    assert (document["node"], document["time"]) == ("n", "1970-01-01T00:00:01.250Z")


async def test_replacing_the_engine_leaves_a_decision_under_way_on_the_former() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(FakeEngine):
        async def decide(self, document: PolicyInput) -> Decision:
            asked.set()
            await go.wait()
            return replace(ALLOW, revision="old")

    former = Slow()
    gate = Gate(former)
    under_way = asyncio.create_task(gate.decide(start(), CALLER, SUBJECT))
    await asked.wait()
    assert gate.replace(FakeEngine(replace(ALLOW, revision="new"))) is former
    go.set()
    assert (await under_way).revision == "old"
    assert (await gate.decide(start(), CALLER, SUBJECT)).revision == "new"


LASTING = replace(ALLOW, ttl_seconds=60.0)


def remembering(clock: FakeClock, answer: object = LASTING) -> tuple[Gate, FakeEngine]:
    engine = FakeEngine(answer, revision=ALLOW.revision, repeatable=True)
    return Gate(engine, node="n", monotonic=clock.time), engine


async def test_what_an_earlier_revision_said_is_asked_anew() -> None:
    gate, engine = remembering(FakeClock())
    for revision, asked in (("1", 1), ("1", 1), ("2", 2), ("2", 2), ("1", 3)):
        engine.answer, engine.revision = replace(LASTING, revision=revision), revision
        assert (await gate.decide(start(), CALLER, SUBJECT)).revision == revision
        assert len(engine.asked) == asked


async def test_an_equal_question_gets_the_same_answer_until_its_time_is_over() -> None:
    clock = FakeClock()
    gate, engine = remembering(clock)
    first = await gate.decide(start(), CALLER, SUBJECT)
    again = await gate.decide(start(), CALLER, Subject(PROFILE, replace(SANDBOX, id="1" * 32)))
    assert (first.remembered, again.remembered, len(engine.asked)) == (False, True, 1)
    assert again.verdict is Verdict.ALLOW
    assert json.loads(again.input_json)["sandbox"]["id"] == "1" * 32, "each is on record with its own input"
    clock.advance(60)
    assert not (await gate.decide(start(), CALLER, SUBJECT)).remembered
    assert len(engine.asked) == 2


@pytest.mark.parametrize(
    ("action", "caller", "subject"),
    [
        (start(argv=("/bin/false",)), CALLER, SUBJECT),
        (start(env_names=("LANG",)), CALLER, SUBJECT),
        (start(), replace(CALLER, subject="uid:1"), SUBJECT),
        (start(), replace(CALLER, roles=("operator",)), SUBJECT),
        (start(), CALLER, Subject(replace(PROFILE, digest="e" * 64), SANDBOX)),
        (start(), CALLER, Subject(replace(PROFILE, labels=()), SANDBOX)),
        (start(), CALLER, Subject(PROFILE, replace(SANDBOX, runtime="gvisor"))),
    ],
)
async def test_any_other_question_is_asked(action: ExecutionStart, caller: Caller, subject: Subject) -> None:
    gate, engine = remembering(FakeClock())
    await gate.decide(start(), CALLER, SUBJECT)
    assert not (await gate.decide(action, caller, subject)).remembered
    assert len(engine.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        ALLOW,
        replace(LASTING, verdict=Verdict.ESCALATE),
        replace(LASTING, revision=""),
        replace(LASTING, obligations=Obligations((("no_such_limit", 1.0),))),
        OSError(5, "broken"),
        None,
    ],
    ids=str,
)
async def test_what_policy_did_not_mark_or_did_not_give_is_not_remembered(answer: object) -> None:
    gate, engine = remembering(FakeClock(), answer)
    for _ in range(2):
        assert not (await gate.decide(start(), CALLER, SUBJECT)).remembered
    assert len(engine.asked) == 2


async def test_a_new_engine_remembers_nothing_even_of_a_question_under_way() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(FakeEngine):
        async def decide(self, document: PolicyInput) -> Decision:
            asked.set()
            await go.wait()
            return LASTING

    gate = Gate(Slow(revision=ALLOW.revision, repeatable=True))
    under_way = asyncio.create_task(gate.decide(start(), CALLER, SUBJECT))
    await asked.wait()
    denying = FakeEngine(replace(LASTING, verdict=Verdict.DENY), revision=ALLOW.revision, repeatable=True)
    gate.replace(denying)
    go.set()
    assert (await under_way).verdict is Verdict.ALLOW
    assert (await gate.decide(start(), CALLER, SUBJECT)).verdict is Verdict.DENY
    gate.replace(FakeEngine(LASTING, revision=ALLOW.revision, repeatable=True))
    assert (await gate.decide(start(), CALLER, SUBJECT)).verdict is Verdict.ALLOW


async def test_nothing_is_remembered_by_an_engine_that_cannot_answer_now() -> None:
    gate, engine = remembering(FakeClock())
    await gate.decide(start(), CALLER, SUBJECT)
    engine.repeatable, engine.answer = False, RuntimeError("dead")
    decision = await gate.decide(start(), CALLER, SUBJECT)
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_unavailable")


class Untold:
    """An engine that was written before engines told whether they are repeatable."""

    name, revision, asked = "untold", "r1", 0

    async def decide(self, document: PolicyInput) -> Decision:
        self.asked += 1
        return LASTING

    async def close(self) -> None:
        pass


async def test_an_engine_that_does_not_tell_whether_it_is_repeatable_is_asked_each_time() -> None:
    engine = Untold()
    gate = Gate(engine, node="n")  # type: ignore[arg-type]  # foreign code
    decisions = [await gate.decide(start(), CALLER, SUBJECT) for _ in range(2)]
    assert [(decision.verdict, decision.remembered) for decision in decisions] == [(Verdict.ALLOW, False)] * 2
    assert engine.asked == 2


async def test_policy_sees_what_the_tenant_did_lately_and_takes_no_answer_again_for_it() -> None:
    engine = FakeEngine(replace(ALLOW, ttl_seconds=60.0), revision="r1", repeatable=True)
    gate = Gate(engine)
    await gate.decide(start(), CALLER, SUBJECT)
    assert (await gate.decide(start(), CALLER, SUBJECT)).remembered, "the history alone asks nothing new"
    engine.answer = Decision(Verdict.DENY, (Reason("c", "m"),), "r1")
    await gate.decide(start(argv=("other",)), CALLER, SUBJECT)
    gate.left(CALLER.tenant, 7)
    await gate.decide(start(argv=("another",)), replace(CALLER, tenant="acme"), SUBJECT)
    await gate.decide(start(argv=("one more",)), CALLER, SUBJECT)
    seen = [json.loads(asked.document)["history"]["last_minute"] for asked in engine.asked]
    nothing = {"executions": 0, "denials": 0, "bytes_out": 0}
    assert seen == [nothing, {**nothing, "executions": 2}, nothing, {"executions": 2, "denials": 1, "bytes_out": 7}]


@pytest.mark.parametrize("answer", [replace(ALLOW, ttl_seconds=60.0), RuntimeError("broken")])
async def test_how_long_the_engine_took_is_told_of_each_question_that_it_was_asked(answer: object) -> None:
    clock, took = FakeClock(), list[float]()
    engine = FakeEngine(answer, revision="r1", repeatable=True)

    class Slow(FakeEngine):
        async def decide(self, document: PolicyInput) -> Decision:
            clock.advance(0.25)
            return await engine.decide(document)

    slow = Slow(revision="r1", repeatable=True)
    gate = Gate(slow, monotonic=clock.time, took=took.append)
    for _ in range(2):
        await gate.decide(start(), CALLER, SUBJECT)
    assert took == [0.25] * len(engine.asked)
    assert len(took) == (2 if isinstance(answer, RuntimeError) else 1), "nobody is asked for what is remembered"


CONNECT = NetConnect("tcp", "api.example.org", "192.0.2.1", 443)
SECRET = SecretUse("token", "api.example.org", 443)


class EitherOr(FakeEngine):
    """A secret or a connection, not both. Answers an action once the test lets it, and tells that it was asked."""

    def __init__(self) -> None:
        super().__init__(repeatable=True)
        self.at = {kind: (asyncio.Event(), asyncio.Event()) for kind in ("net.connect", "secret.use")}

    async def decide(self, document: PolicyInput) -> Decision:
        self.asked.append(document)
        asked = json.loads(document.document)
        kind, seen = asked["action"]["type"], asked["sandbox"]["seen"]
        told, go = self.at[kind]
        told.set()
        await go.wait()
        if seen["secret" if kind == "net.connect" else "egress"]:
            return Decision(Verdict.DENY, (Reason("either_or", "m"),), self.revision)
        return Decision(Verdict.ALLOW, (), self.revision, ttl_seconds=60.0)


def either_or() -> tuple[Gate, EitherOr]:
    engine = EitherOr()
    gate = Gate(engine)
    gate.sightings.begin(SANDBOX.id)
    return gate, engine


def release(engine: EitherOr, *kinds: str) -> None:
    for kind in kinds:
        engine.at[kind][1].set()


class NoEgressAfterSecret(FakeEngine):
    async def decide(self, document: PolicyInput) -> Decision:
        self.asked.append(document)
        asked = json.loads(document.document)
        denied = asked["action"]["type"] == "net.connect" and asked["sandbox"]["seen"]["secret"]
        return replace(LASTING, verdict=Verdict.DENY if denied else Verdict.ALLOW)


async def test_a_remembered_allow_does_not_outlive_a_secret_read() -> None:
    gate = Gate(NoEgressAfterSecret(revision="r1", repeatable=True))
    gate.sightings.begin(SANDBOX.id)
    for remembered in (False, False, True, True):  # the second time it has connected, which is news
        decision = await gate.decide(CONNECT, CALLER, SUBJECT)
        assert (decision.verdict, decision.remembered) == (Verdict.ALLOW, remembered), "the control"
    assert (await gate.decide(SECRET, CALLER, SUBJECT)).verdict is Verdict.ALLOW
    denied = await gate.decide(CONNECT, CALLER, SUBJECT)
    assert denied.verdict is Verdict.DENY
    assert json.loads(denied.input_json)["sandbox"]["seen"] == {
        "secret": True,
        "untrusted_input": False,
        "egress": True,
    }


@pytest.mark.parametrize("first", ["net.connect", "secret.use"])
async def test_of_two_at_once_the_second_answer_counts_what_the_first_has_made_of_the_sandbox(first: str) -> None:
    gate, engine = either_or()
    deciding = {action.type: asyncio.create_task(gate.decide(action, CALLER, SUBJECT)) for action in (CONNECT, SECRET)}
    for told, _ in engine.at.values():
        await told.wait()
    release(engine, first)
    assert (await deciding.pop(first)).verdict is Verdict.ALLOW
    release(engine, *deciding)
    ((_, second),) = deciding.items()
    assert (await second).verdict is Verdict.DENY
    assert len(engine.asked) == 3, "it was asked anew, though policy had nothing against it before"


async def test_the_flag_stands_when_the_caller_learns_that_it_may() -> None:
    gate, engine = either_or()
    release(engine, "secret.use")
    deciding = asyncio.create_task(gate.decide(SECRET, CALLER, SUBJECT))
    deciding.add_done_callback(lambda _: seen.append(gate.sightings.of(SANDBOX.id)))
    seen: list[Seen | None] = []
    await deciding
    assert seen == [Seen(secret=True)]


async def test_what_is_denied_raises_nothing() -> None:
    gate, engine = either_or()
    release(engine, "net.connect", "secret.use")
    await gate.decide(SECRET, CALLER, SUBJECT)
    await gate.decide(CONNECT, CALLER, SUBJECT)
    assert gate.sightings.of(SANDBOX.id) == Seen(secret=True)


async def test_another_sandbox_has_seen_nothing() -> None:
    gate, engine = either_or()
    release(engine, "net.connect", "secret.use")
    await gate.decide(SECRET, CALLER, SUBJECT)
    gate.sightings.begin("1" * 32)
    other = Subject(PROFILE, replace(SANDBOX, id="1" * 32))
    assert (await gate.decide(CONNECT, CALLER, other)).verdict is Verdict.ALLOW


async def test_what_would_be_seen_in_no_living_sandbox_is_denied() -> None:
    gate, engine = either_or()
    release(engine, "net.connect", "secret.use")
    gate.sightings.end(SANDBOX.id)
    for action in (SECRET, CONNECT):
        denied = await gate.decide(action, CALLER, SUBJECT)
        assert (denied.verdict, denied.reasons[0].code) == (Verdict.DENY, "sandbox_unknown")
        assert json.loads(denied.input_json)["action"]["type"] == action.type


async def test_a_sandbox_that_goes_while_policy_is_asked_lets_nothing_in_or_out() -> None:
    gate, engine = either_or()
    deciding = asyncio.create_task(gate.decide(SECRET, CALLER, SUBJECT))
    await engine.at["secret.use"][0].wait()
    gate.sightings.end(SANDBOX.id)
    release(engine, "secret.use")
    assert (await deciding).verdict is Verdict.DENY
    assert gate.sightings.of(SANDBOX.id) is None


async def test_the_engine_is_told_the_trace_beside_the_question_and_remembers_without_it() -> None:
    lasting = replace(LASTING, verdict=Verdict.ALLOW)
    engine = FakeEngine(lasting, revision=lasting.revision, repeatable=True)
    gate = Gate(engine, clock=lambda: 1.25)
    trace = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)
    first = await gate.decide(start(), CALLER, replace(SUBJECT, trace=trace))
    (asked,) = engine.asked
    assert asked.trace == trace and b"traceparent" not in asked.document
    again = await gate.decide(start(), CALLER, replace(SUBJECT, trace=(("traceparent", "another"),)))
    assert (first.remembered, again.remembered) == (False, True)


async def test_barred_caller_is_denied_without_policy_but_for_answers_to_incidents_as_operator() -> None:
    engine = FakeEngine(ALLOW)
    gate = Gate(engine, barred=lambda caller: "no more" if caller.subject == CALLER.subject else "")
    operator = replace(CALLER, roles=("operator",))
    for caller in (CALLER, operator):
        denied = await gate.decide(start(), caller, SUBJECT)
        assert (denied.verdict, denied.reasons[0].code, denied.message_for_agent) == (
            Verdict.DENY,
            "quarantined",
            "no more",
        )
    assert (await gate.decide(SandboxPause(), CALLER, SUBJECT)).verdict is Verdict.DENY
    assert engine.asked == []
    assert (await gate.decide(SandboxPause(), operator, SUBJECT)).verdict is Verdict.ALLOW
    with pytest.raises(PolicyDenied) as refused:
        gate.require_free(CALLER)
    assert refused.value.reason == "quarantined"
    gate.require_free(replace(CALLER, subject="uid:7"))
