import asyncio
import json

from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event, PolicyShadowDiffered, PolicyShadowFailed
from sandboxd.gate import Gate, Subject
from sandboxd.model import Decision, Obligations, Reason, Verdict
from sandboxd.policy.base import refusal
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.shadow import MAX_WAITING_BYTES, Counts, Shadow
from tests.fakes.policy import CALLER, FakeEngine, start

SUBJECT = Subject(ProfileFacts("default", "0" * 64, ()), SandboxFacts("s" * 32, "process"))
ALLOW = Decision(Verdict.ALLOW, (), "now-1")


class Rig:
    """A gate with a fake engine, and a shadow with another."""

    def __init__(self, answer: object, shadow_answer: object, queue: int = 8, steps: int = 0) -> None:
        self.events: list[Event] = []
        self.unavailable = False
        self.first = FakeEngine(answer, revision="now-1")
        self.second = FakeEngine(shadow_answer, revision="new-2", steps=steps)
        self.gate = Gate(self.first)
        self.shadow = Shadow(self.second, self.gate.judge, self.record, queue)
        self.gate.observe(self.shadow.offer)

    async def record(self, event: Event) -> int:
        if self.unavailable:
            raise AuditUnavailable("no journal")
        self.events.append(event)
        return len(self.events)

    async def decide(self) -> Decision:
        decision = await self.gate.decide(start(), CALLER, SUBJECT)
        await self.shadow.settled()
        return decision


async def test_difference_is_on_record_with_both_answers_and_changes_nothing() -> None:
    tighter = Decision(
        Verdict.DENY, (Reason("new_rule", "no"),), "new-2", obligations=Obligations(limits=(("pids", 3.0),))
    )
    rig = Rig(ALLOW, tighter)
    decision = await rig.decide()
    assert decision.verdict is Verdict.ALLOW
    (event,) = rig.events
    assert isinstance(event, PolicyShadowDiffered)
    assert (event.tenant, event.sandbox_id, event.policy_revision) == ("local", "s" * 32, "now-1")
    assert (event.action, event.verdict, event.shadow_verdict) == ("execution.start", "allow", "deny")
    assert (event.reason_codes, event.shadow_reason_codes) == ((), ("new_rule",))
    assert json.loads(event.shadow_obligations)["limits"] == [["pids", 3.0]] != json.loads(event.obligations)["limits"]
    assert event.shadow_revision == "new-2"
    assert rig.second.asked[0].document == decision.input_json == rig.first.asked[0].document
    assert rig.shadow.counts == Counts(compared=1, differed=1)
    await rig.shadow.close()
    assert rig.second.closed


async def test_same_answer_in_other_words_is_no_difference() -> None:
    deny = Decision(Verdict.DENY, (Reason("a", "first"), Reason("b", "second")), "now-1", "one", ttl_seconds=5.0)
    rig = Rig(deny, Decision(Verdict.DENY, (Reason("b", "x"), Reason("a", "y")), "new-2", "other"))
    await rig.decide()
    assert rig.events == [] and rig.shadow.counts == Counts(compared=1)
    await rig.shadow.close()


async def test_shadow_that_answers_nonsense_differs_and_one_that_fails_is_told_once() -> None:
    rig = Rig(ALLOW, "nonsense")
    await rig.decide()
    assert isinstance(rig.events[0], PolicyShadowDiffered)
    assert rig.events[0].shadow_reason_codes == ("policy_malformed",)
    rig.second.answer = ValueError("broken")
    for _ in range(3):
        assert (await rig.decide()).verdict is Verdict.ALLOW
    rig.second.answer = refusal("policy_timeout", "late", "new-2")
    await rig.decide()
    assert [type(event) for event in rig.events] == [PolicyShadowDiffered, PolicyShadowFailed]
    rig.second.answer = ALLOW
    await rig.decide()
    rig.second.answer = ValueError("broken again")
    await rig.decide()
    assert [type(event) for event in rig.events].count(PolicyShadowFailed) == 2
    assert rig.shadow.counts == Counts(compared=2, differed=1, failed=5)
    await rig.shadow.close()


async def test_what_has_no_place_in_the_queue_is_dropped_and_counted_and_nobody_waits() -> None:
    rig = Rig(ALLOW, ALLOW, queue=2)
    gate = rig.gate
    for _ in range(5):  # the shadow has no turn in between: the fake engine never gives way
        await gate.decide(start(), CALLER, SUBJECT)
    assert len(rig.first.asked) == 5
    assert rig.shadow.counts.dropped >= 2
    await rig.shadow.settled()
    assert rig.shadow.counts.compared + rig.shadow.counts.dropped == 5
    await rig.shadow.close()


async def test_large_inputs_fill_the_queue_before_its_places_are_taken() -> None:
    rig = Rig(ALLOW, ALLOW, queue=10_000)
    large = start(("x" * 1_000_000,))
    for _ in range(40):
        await rig.gate.decide(large, CALLER, SUBJECT)
    assert rig.shadow.counts.dropped >= 40 - MAX_WAITING_BYTES // 1_000_000 - 1 > 0
    await rig.shadow.settled()
    await rig.decide()
    assert rig.shadow.counts.compared + rig.shadow.counts.dropped == 41
    assert rig.shadow.counts.compared >= MAX_WAITING_BYTES // 1_000_000
    await rig.shadow.close()


async def test_remembered_decision_is_not_compared_again() -> None:
    rig = Rig(Decision(Verdict.ALLOW, (), "now-1", ttl_seconds=60.0), ALLOW)
    rig.first.repeatable = True
    assert not (await rig.decide()).remembered
    assert (await rig.decide()).remembered
    assert len(rig.second.asked) == 1
    await rig.shadow.close()


async def test_unwritable_journal_ends_neither_the_shadow_nor_a_decision() -> None:
    rig = Rig(ALLOW, Decision(Verdict.DENY, (), "new-2"))
    rig.unavailable = True
    assert (await rig.decide()).verdict is Verdict.ALLOW
    rig.unavailable = False
    await rig.decide()
    assert len(rig.events) == 1 and rig.shadow.counts.differed == 2
    await rig.shadow.close()


async def test_shadow_that_hangs_delays_no_decision_and_is_closed() -> None:
    rig = Rig(ALLOW, ALLOW, steps=10**9)
    assert (await rig.gate.decide(start(), CALLER, SUBJECT)).verdict is Verdict.ALLOW
    await asyncio.sleep(0)
    assert rig.second.asked and rig.shadow.counts.compared == 0
    await rig.shadow.close()
    assert rig.second.closed
