"""Each response before fakes that keep what they were told: who may, what policy says, what comes of it, the record."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from sandboxd.errors import CallerRefused, InvalidRequest, NotFound, PolicyDenied, RuntimeFailed, Unenforceable
from sandboxd.event import PolicyDecided, ResponseRefused, ResponseTaken
from sandboxd.model import Caller, Decision, EndReason, Reason, Verdict
from sandboxd.response.demand import Effect, Kind, Measure, Target
from sandboxd.response.quarantine import Quarantines
from tests.fakes.incidents import OPERATOR, SOMEBODY, TRACE, Incident, Incidents
from tests.fakes.policy import start

MALLORY = Caller("local", "uid:1000", (), "/sandboxd.v1.SandboxService/Execute")


def effects(taken: object) -> list[Effect]:
    return [effect for _, effect in taken.effects]  # type: ignore[attr-defined]


def refusals(node: Incidents) -> list[str]:
    return [event.reason for event in node.record.events if isinstance(event, ResponseRefused)]


@pytest.mark.parametrize(
    ("measure", "action", "effect"),
    [
        (Measure.FREEZE, "sandbox.pause", Effect.FROZEN),
        (Measure.KILL, "sandbox.delete", Effect.KILLED),
        (Measure.QUARANTINE, "sandbox.pause", Effect.HELD),
    ],
)
@pytest.mark.parametrize("kind", [Kind.SANDBOX, Kind.EXECUTION])
async def test_measure_is_decided_taken_and_on_record(
    node: Incidents, measure: Measure, action: str, effect: Effect, kind: Kind
) -> None:
    incident = await node.start()
    other = await node.start("uid:2000")
    target = incident.sandbox_id if kind is Kind.SANDBOX else incident.execution_id
    taken = await node.respond(measure, kind, target)
    assert taken.effects == ((incident.execution_id, effect),)
    assert (incident.sandbox_id in node.runtime.paused) == (measure is not Measure.KILL)
    assert other.sandbox_id not in node.runtime.paused
    decided, told = node.record.events
    assert isinstance(decided, PolicyDecided) and isinstance(told, ResponseTaken)
    assert (decided.action, decided.execution_id, decided.sandbox_id) == (
        action,
        incident.execution_id,
        incident.sandbox_id,
    )
    assert (told.subject, told.measure, told.target, told.target_id) == ("uid:0", measure, kind, target)
    assert (told.comment, told.effects, told.trace_id) == ("why", ((incident.execution_id, effect.value),), TRACE)
    asked = json.loads(node.engine.asked[0].document)
    assert (asked["caller"]["subject"], asked["profile"]["name"]) == ("uid:0", "mine")


async def test_frozen_one_goes_on_when_it_is_thawed(node: Incidents) -> None:
    incident = await node.start()
    await node.respond(Measure.FREEZE, Kind.EXECUTION, incident.execution_id)
    assert effects(await node.respond(Measure.THAW, Kind.EXECUTION, incident.execution_id)) == [Effect.THAWED]
    assert node.runtime.paused == set()


async def test_nobody_but_an_operator_may_and_nothing_is_on_record_of_it(node: Incidents) -> None:
    incident = await node.start()
    for measure in Measure:
        with pytest.raises(CallerRefused):
            await node.respond(measure, Kind.EXECUTION, incident.execution_id, SOMEBODY)
    assert (node.record.events, node.engine.asked, node.runtime.paused) == ([], [], set())


async def test_what_policy_denies_is_not_done(node: Incidents) -> None:
    incident = await node.start()
    node.engine.answer = Decision(Verdict.DENY, (Reason("no", "no"),), "r1")
    for measure in (Measure.FREEZE, Measure.KILL, Measure.QUARANTINE):
        with pytest.raises(PolicyDenied):
            await node.respond(measure, Kind.EXECUTION, incident.execution_id)
    assert (refusals(node), node.runtime.paused, tuple(node.quarantines)) == (["no"] * 3, set(), ())
    assert not incident.supervision.over


async def test_what_is_so_already_needs_no_decision_so_no_response_brings_about_another(node: Incidents) -> None:
    incident = await node.start()
    for measure in (Measure.FREEZE, Measure.QUARANTINE):
        await node.respond(measure, Kind.EXECUTION, incident.execution_id)
        asked = len(node.engine.asked)
        assert effects(await node.respond(measure, Kind.EXECUTION, incident.execution_id)) == [Effect.UNCHANGED]
        assert len(node.engine.asked) == asked
    assert len(tuple(node.quarantines)) == 1


@pytest.mark.parametrize("measure", [Measure.FREEZE, Measure.THAW])
async def test_one_that_is_being_launched_is_refused_with_what_to_do(node: Incidents, measure: Measure) -> None:
    incident = await node.launch()
    with pytest.raises(Unenforceable) as refused:
        await node.respond(measure, Kind.EXECUTION, incident.execution_id)
    assert (refused.value.reason, refusals(node)) == ("not_running", ["not_running"])


async def test_one_that_has_ended_is_told_from_one_that_never_was(node: Incidents) -> None:
    incident = await node.start()
    incident.end(EndReason.CANCELLED)
    await incident.over
    for measure in (Measure.FREEZE, Measure.THAW, Measure.KILL):
        with pytest.raises(Unenforceable) as refused:
            await node.respond(measure, Kind.EXECUTION, incident.execution_id)
        assert refused.value.reason == "already_ended"
        with pytest.raises(NotFound):
            await node.respond(measure, Kind.SANDBOX, "f" * 32)
    assert refusals(node) == ["already_ended", "not_found"] * 3


async def test_what_does_not_stand_still_is_told_and_left_as_it_was(node: Incidents) -> None:
    incident = await node.start()
    node.runtime.pause_error = RuntimeFailed("no", reason="freeze_failed")
    with pytest.raises(RuntimeFailed):
        await node.respond(Measure.FREEZE, Kind.EXECUTION, incident.execution_id)
    assert refusals(node) == ["freeze_failed"]
    assert not incident.supervision.over
    assert effects(await node.respond(Measure.FREEZE, Kind.TENANT, "local")) == [Effect.FAILED]


async def test_tenant_and_subject_are_all_of_theirs(node: Incidents) -> None:
    mine, other = await node.start(), await node.start("uid:2000")
    assert effects(await node.respond(Measure.FREEZE, Kind.SUBJECT, "uid:2000")) == [Effect.FROZEN]
    assert node.runtime.paused == {other.sandbox_id}
    assert effects(await node.respond(Measure.FREEZE, Kind.TENANT, "local")) == [Effect.FROZEN, Effect.UNCHANGED]
    assert node.runtime.paused == {mine.sandbox_id, other.sandbox_id}
    assert effects(await node.respond(Measure.KILL, Kind.TENANT, "local")) == [Effect.KILLED] * 2
    assert effects(await node.respond(Measure.KILL, Kind.SUBJECT, "uid:7")) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.TENANT, "lcoal"),
        (Kind.TENANT, ""),
        (Kind.SUBJECT, "uid:"),
        (Kind.SUBJECT, "1000"),
        (Kind.SUBJECT, "uid:01"),
        (Kind.SUBJECT, "uid:1000\n"),
    ],
)
async def test_who_cannot_be_is_not_quarantined(node: Incidents, kind: Kind, name: str) -> None:
    with pytest.raises(NotFound):
        await node.respond(Measure.QUARANTINE, kind, name)
    assert tuple(node.quarantines) == ()


# --- quarantine


async def _quarantined(node: Incidents) -> Incident:
    incident = await node.start()
    await node.respond(Measure.QUARANTINE, Kind.SANDBOX, incident.sandbox_id)
    return incident


async def test_quarantined_owner_is_denied_before_policy_is_asked_and_others_are_not(node: Incidents) -> None:
    incident = await _quarantined(node)
    asked = len(node.engine.asked)
    about = incident.suspension.dossier.subject  # type: ignore[union-attr]
    denied = await node.gate.decide(start(), MALLORY, about)
    assert (denied.verdict, denied.reasons[0].code) == (Verdict.DENY, "quarantined")
    assert "quarantined" in denied.message_for_agent
    assert len(node.engine.asked) == asked
    with pytest.raises(PolicyDenied):
        node.gate.require_free(MALLORY)
    other = Caller("local", "uid:2000", (), "x")
    node.gate.require_free(other)
    assert (await node.gate.decide(start(), other, about)).verdict is Verdict.ALLOW


async def test_quarantined_operator_runs_nothing_but_can_lift_it(node: Incidents) -> None:
    await node.respond(Measure.QUARANTINE, Kind.TENANT, "local")
    about = (await node.launch()).suspension.dossier.subject  # type: ignore[union-attr]
    assert (await node.gate.decide(start(), OPERATOR, about)).verdict is Verdict.DENY
    await node.respond(Measure.LIFT, Kind.TENANT, "local")
    assert (await node.gate.decide(start(), OPERATOR, about)).verdict is Verdict.ALLOW


async def test_held_one_is_ended_by_nothing_but_an_operator_or_the_node(node: Incidents) -> None:
    incident = await _quarantined(node)
    node.clock.advance(3600)
    incident.end(EndReason.CANCELLED)
    assert not incident.supervision.over
    with pytest.raises(PolicyDenied):
        await node.registry.kill(incident.execution_id, None, MALLORY)
    with pytest.raises(Unenforceable):
        await node.respond(Measure.THAW, Kind.SANDBOX, incident.sandbox_id)
    assert effects(await node.respond(Measure.KILL, Kind.SANDBOX, incident.sandbox_id)) == [Effect.KILLED]
    assert (await incident.over).end_reason is EndReason.KILLED


async def test_node_that_goes_down_ends_a_held_one(node: Incidents) -> None:
    incident = await _quarantined(node)
    node.registry.end_all(EndReason.NODE_SHUTDOWN)
    assert (await incident.over).end_reason is EndReason.NODE_SHUTDOWN


async def test_lifting_thaws_and_ends_what_meanwhile_would_have_ended(node: Incidents) -> None:
    first, second = await _quarantined(node), await node.start("uid:2000")
    first.end(EndReason.CANCELLED)
    assert effects(await node.respond(Measure.LIFT, Kind.EXECUTION, first.execution_id)) == [Effect.THAWED]
    assert (await first.over).end_reason is EndReason.CANCELLED
    assert (node.runtime.paused, tuple(node.quarantines)) == (set(), ())
    assert not second.supervision.over


async def test_what_was_frozen_before_and_by_somebody_else_stays_frozen_after_a_lift(node: Incidents) -> None:
    """Of two quarantines the other one still holds."""
    incident = await _quarantined(node)
    await node.respond(Measure.QUARANTINE, Kind.TENANT, "local")
    assert effects(await node.respond(Measure.LIFT, Kind.SUBJECT, "uid:1000")) == []
    await node.respond(Measure.QUARANTINE, Kind.SUBJECT, "uid:1000")
    assert len(tuple(node.quarantines)) == 1, "nothing is added that is covered"
    with pytest.raises(NotFound):
        await node.respond(Measure.LIFT, Kind.EXECUTION, incident.execution_id)
    assert incident.suspension is not None and incident.suspension.held


async def test_quarantine_of_an_ended_execution_is_of_its_owner(node: Incidents) -> None:
    incident, other = await node.start(), await node.start()
    incident.end(EndReason.CANCELLED)
    await incident.over
    taken = await node.respond(Measure.QUARANTINE, Kind.EXECUTION, incident.execution_id, rule="Some rule")
    assert taken.effects == ((other.execution_id, Effect.HELD),)
    (one,) = node.quarantines
    assert (one.tenant, one.subject, one.by, one.rule, one.since) == ("local", "uid:1000", "uid:0", "Some rule", 5.0)


async def test_what_a_quarantine_cannot_freeze_it_kills(node: Incidents) -> None:
    incident = await node.start()
    node.runtime.pause_error = RuntimeFailed("no", reason="freeze_failed")
    assert effects(await node.respond(Measure.QUARANTINE, Kind.EXECUTION, incident.execution_id)) == [Effect.KILLED]
    assert (await incident.over).end_reason is EndReason.KILLED


async def test_quarantine_that_cannot_be_kept_holds_all_the_same_and_is_an_error(
    node: Incidents, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = await node.start()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RuntimeFailed) as failure:
            await node.respond(Measure.QUARANTINE, Kind.EXECUTION, incident.execution_id)
    assert (failure.value.reason, refusals(node)) == ("not_durable", ["not_durable"])
    assert incident.sandbox_id in node.runtime.paused
    assert node.quarantines.barred(MALLORY)


@pytest.mark.parametrize("turns", range(12))
async def test_response_is_carried_through_when_who_asked_for_it_has_gone(node: Incidents, turns: int) -> None:
    incidents = [await node.start(), await node.start()]
    node.runtime.steps = 3
    asking = asyncio.create_task(node.respond(Measure.QUARANTINE, Kind.SUBJECT, "uid:1000"))
    for _ in range(turns + 1):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    for _ in range(40):
        await asyncio.sleep(0)
    assert node.runtime.paused == {incident.sandbox_id for incident in incidents}
    assert node.record.rules[-1] == "response.taken"


async def test_next_life_knows_who_is_quarantined(node: Incidents, tmp_path: Path) -> None:
    await _quarantined(node)
    assert Quarantines(tmp_path / "state").barred(MALLORY)


async def test_examination_is_decided_and_on_record_and_changes_nothing(node: Incidents) -> None:
    incident = await node.start()
    record, suspension = await node.responder.examined(Target(Kind.SANDBOX, incident.sandbox_id), OPERATOR, TRACE)
    assert (record.execution_id, suspension) == (incident.execution_id, incident.suspension)
    assert [event.rule for event in node.record.events] == ["policy.decided", "response.taken"]
    decided = node.record.events[0]
    assert isinstance(decided, PolicyDecided) and decided.action == "sandbox.snapshot"
    assert node.runtime.paused == set()
    with pytest.raises(InvalidRequest):
        await node.responder.examined(Target(Kind.TENANT, "local"), OPERATOR, TRACE)
    with pytest.raises(CallerRefused):
        await node.responder.examined(Target(Kind.SANDBOX, incident.sandbox_id), SOMEBODY, TRACE)
