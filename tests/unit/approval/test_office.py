"""The whole office on a real directory: nothing counts before it is kept and on record, and no grant is used twice."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.approval.case import Case, State
from sandboxd.approval.desk import Fatigue
from sandboxd.errors import ApprovalUnavailable, AuditUnavailable, Draining, InvalidRequest, NotFound
from sandboxd.event import ApprovalConsumed, ApprovalGranted, ApprovalRequested, Event
from sandboxd.model import Approval, Decision, Obligations, Verdict
from tests.fakes.approvals import ALICE, BOB, NOBODY, REQUESTER, STRANGER, Office, asked
from tests.fakes.recorder import FakeRecorder

ID = f"{1:032x}"
OTHER = asked("c" * 64)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    yield Office(tmp_path / "approvals")


def code(decision: Decision) -> str:
    return "" if decision.verdict is not Verdict.DENY else decision.reasons[0].code


async def test_what_is_asked_is_parked_then_granted_then_used_once(office: Office) -> None:
    assert code(parked := await office.settle()) == "approval_required"
    assert parked.approval_id == ID
    assert (await office.approve(ID)).state is State.GRANTED
    used = await office.settle()
    assert (used.verdict, used.approval_id) == (Verdict.ALLOW, ID)
    again = await office.settle()
    assert (code(again), again.approval_id) == ("approval_required", f"{2:032x}")
    assert office.record.rules == ["approval.requested", "approval.granted", "approval.consumed", "approval.requested"]


async def test_the_record_says_who_asked_who_granted_and_which_execution_used_it(office: Office) -> None:
    await office.settle()
    await office.approve(ID, BOB)
    await office.settle(replace(asked(), execution_id="e2", sandbox_id="s2", trace_id="t2"))
    requested, granted, consumed = office.record.events
    assert isinstance(requested, ApprovalRequested) and isinstance(granted, ApprovalGranted)
    assert isinstance(consumed, ApprovalConsumed)
    assert (requested.subject, requested.shown_sha256, requested.ttl_seconds) == ("uid:1000", "f" * 64, 60.0)
    assert (granted.subject, granted.requester, granted.comment, granted.execution_id) == (
        "uid:7", "uid:1000", "fine", "e" * 32,
    )  # fmt: skip
    assert (consumed.subject, consumed.approvers, consumed.execution_id) == ("uid:1000", ("uid:7",), "e2")
    assert {event.policy_revision for event in office.record.events} == {"r1"}


async def test_a_repeated_request_waits_for_the_same_approval_and_writes_nothing(office: Office) -> None:
    for _ in range(5):
        assert (await office.settle()).approval_id == ID
    assert (office.record.rules, len(office.told)) == (["approval.requested"], 1)


async def test_of_twenty_racing_requests_one_uses_the_grant(office: Office) -> None:
    await office.settle()
    await office.approve(ID)
    decisions = await asyncio.gather(*(office.settle() for _ in range(20)))
    assert [decision.verdict for decision in decisions].count(Verdict.ALLOW) == 1
    assert office.record.rules.count("approval.consumed") == 1
    assert {decision.approval_id for decision in decisions if code(decision)} == {f"{2:032x}"}


class Slow(FakeRecorder):
    """It gives way to other tasks, as one does that waits for the disk."""

    async def record(self, event: Event) -> int:
        await asyncio.sleep(0)
        return await super().record(event)


async def test_racing_requests_are_laid_before_people_once(tmp_path: Path) -> None:
    office = Office(tmp_path / "approvals", record=Slow())
    decisions = await asyncio.gather(*(office.settle() for _ in range(20)))
    assert {decision.approval_id for decision in decisions} == {ID}
    assert office.record.rules == ["approval.requested"]


async def test_of_racing_votes_each_counts_and_none_twice(tmp_path: Path) -> None:
    office = Office(tmp_path / "approvals", record=Slow())
    await office.settle(asked(quorum=2))
    voters = (ALICE, BOB, ALICE)
    ended = await asyncio.gather(*(office.approve(ID, who) for who in voters), return_exceptions=True)
    assert [isinstance(end, InvalidRequest) for end in ended] == [False, False, True]
    assert [vote.approver for vote in office.again().approvals.case(ID, ALICE).votes] == ["uid:0", "uid:7"]


async def test_a_grant_is_good_for_nothing_else(office: Office) -> None:
    await office.settle()
    await office.approve(ID)
    assert code(await office.settle(OTHER)) == "approval_required"
    assert code(await office.settle()) == ""


async def test_each_of_the_quorum_votes_once(office: Office) -> None:
    two = asked(quorum=2)
    await office.settle(two)
    assert (await office.approve(ID, ALICE)).state is State.PENDING
    assert code(await office.settle(two)) == "approval_required"
    assert (await office.approve(ID, BOB)).state is State.GRANTED
    assert code(await office.settle(two)) == ""
    assert office.record.rules[1:] == ["approval.voted", "approval.granted", "approval.consumed"]


async def test_who_was_refused_is_told_so_until_it_is_forgotten(office: Office) -> None:
    await office.settle()
    assert (await office.deny(ID, comment="no")).state is State.DENIED
    for _ in range(2):
        assert (code(denied := await office.settle()), denied.approval_id) == ("approval_denied", ID)
    office.clock.advance(60)
    assert (await office.settle()).approval_id == f"{2:032x}"
    assert office.record.rules == ["approval.requested", "approval.denied", "approval.requested"]


async def test_time_ends_what_waits_and_what_was_granted(office: Office) -> None:
    await office.settle()
    office.clock.advance(60)
    assert (await office.settle()).approval_id == f"{2:032x}"
    await office.approve(f"{2:032x}")
    office.clock.advance(60)
    assert (await office.settle()).approval_id == f"{3:032x}"
    assert [event.granted for event in office.record.events if event.rule == "approval.expired"] == [False, True]  # type: ignore[attr-defined]


async def test_what_is_over_is_swept_off_the_disk(office: Office) -> None:
    await office.settle()
    await office.settle(OTHER)
    await office.deny(ID)
    office.clock.advance(60)
    await office.approvals.sweep()
    assert (office.files, list(office.desk)) == ([], [])
    assert office.record.rules.count("approval.expired") == 1, "what was denied did not expire"


async def test_what_is_over_is_ended_without_being_asked_for(office: Office) -> None:
    sweeping = asyncio.create_task(office.approvals.run())
    await office.settle(replace(asked(), rule=Approval(0.01, ())))
    office.clock.advance(1)
    async with asyncio.timeout(60):
        while office.files:
            await asyncio.sleep(0.01)
    sweeping.cancel()


# --- a daemon that died


async def test_what_was_pending_and_granted_is_so_after_a_restart(office: Office) -> None:
    await office.settle()
    await office.settle(OTHER)
    await office.approve(ID)
    again = office.again()
    assert code(await again.settle()) == ""
    assert (await again.settle(OTHER)).approval_id == f"{2:032x}"
    assert [path for path in again.files if path.startswith(ID)] == []


async def test_a_grant_that_was_used_is_gone_after_a_restart(office: Office) -> None:
    await office.settle()
    await office.approve(ID)
    await office.settle()
    assert code(await office.again().settle()) == "approval_required"


async def test_time_goes_on_while_the_daemon_is_dead(office: Office) -> None:
    await office.settle()
    await office.approve(ID)
    office.clock.advance(60)
    assert code(await office.again().settle()) == "approval_required"


# --- what cannot be kept or recorded


@pytest.mark.parametrize("refuses", ["approval.requested", "*"])
async def test_what_cannot_be_recorded_is_not_parked(office: Office, refuses: str) -> None:
    office.record.refuses = frozenset({refuses})
    assert code(await office.settle()) == "approval_unavailable"
    assert (office.files, office.told) == ([], [])


async def test_what_cannot_be_kept_is_not_parked(office: Office) -> None:
    shutil.rmtree(office.directory)
    assert code(await office.settle()) == "approval_unavailable"
    assert list(office.desk) == []


async def test_a_vote_that_cannot_be_recorded_does_not_count(office: Office) -> None:
    await office.settle()
    office.record.refuses = frozenset({"approval.granted"})
    with pytest.raises(AuditUnavailable):
        await office.approve(ID)
    assert code(await office.settle()) == code(await office.again().settle()) == "approval_required"


async def test_a_vote_that_cannot_be_kept_does_not_count(office: Office) -> None:
    await office.settle()
    shutil.rmtree(office.directory)
    with pytest.raises(ApprovalUnavailable):
        await office.approve(ID)
    assert code(await office.settle()) == "approval_required"


class Stuck:
    """A disk that nothing can be taken off."""

    def __init__(self) -> None:
        self.attempts = 0

    def save(self, case: Case) -> None:
        self.attempts += 1
        raise OSError(30, "Read-only file system")

    remove = save


async def test_what_is_over_and_cannot_be_taken_off_the_disk_is_not_tried_again_at_once(office: Office) -> None:
    await office.settle()
    stuck = office.approvals._store = Stuck()
    office.clock.advance(3600)
    sweeping = asyncio.create_task(office.approvals.run())
    async with asyncio.timeout(60):
        while not stuck.attempts:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    sweeping.cancel()
    assert stuck.attempts == 1


async def test_a_grant_that_cannot_be_taken_off_the_disk_is_not_used(office: Office) -> None:
    await office.settle()
    await office.approve(ID)
    office.approvals._store = Stuck()
    assert code(await office.settle()) == "approval_unavailable"
    assert "approval.consumed" not in office.record.rules


async def test_a_use_that_cannot_be_recorded_is_none_and_the_grant_is_lost(office: Office) -> None:
    await office.settle()
    await office.approve(ID)
    office.record.refuses = frozenset({"approval.consumed"})
    assert code(await office.settle()) == "approval_unavailable"
    assert code(await office.settle()) == "approval_required"


# --- floods


async def test_a_flood_is_refused_and_costs_nothing_on_disk(tmp_path: Path) -> None:
    office = Office(tmp_path / "approvals", Fatigue(20, 1000))
    decisions = [await office.settle(asked(f"{number:064x}")) for number in range(1000)]
    assert [code(decision) for decision in decisions].count("approval_required") == 20
    assert [code(decision) for decision in decisions].count("approval_flood") == 980
    assert (len(office.files), len(office.record.events)) == (20, 20)
    assert code(await office.settle(asked("d" * 64, requester="uid:2"))) == "approval_required"
    assert (await office.settle(asked(f"{0:064x}"))).approval_id == ID, "what is parked stays so"


# --- who looks


async def test_a_caller_sees_its_own_an_operator_all(office: Office) -> None:
    await office.settle()
    await office.settle(asked("c" * 64, requester="uid:2"))
    assert [len(office.approvals.cases(who)) for who in (REQUESTER, ALICE, NOBODY, STRANGER)] == [1, 2, 0, 0]
    with pytest.raises(NotFound):
        office.approvals.case(ID, NOBODY)
    office.clock.advance(60)
    assert office.approvals.cases(ALICE) == ()


async def test_a_watch_begins_with_what_is_pending_and_then_tells_each_change(office: Office) -> None:
    await office.settle()
    async with aclosing(office.approvals.watch(ALICE)) as news:
        assert (await anext(news)).state is State.PENDING
        await office.approve(ID)
        await office.settle()
        await office.settle(OTHER)
        assert [(await anext(news)).state for _ in range(3)] == [State.GRANTED, State.CONSUMED, State.PENDING]
        office.clock.advance(60)
        await office.approvals.sweep()
        assert (await anext(news)).state is State.EXPIRED


async def test_a_watch_tells_nothing_of_others(office: Office) -> None:
    async with aclosing(office.approvals.watch(NOBODY)) as news:
        first = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)
        await office.settle()
        await office.settle(asked("c" * 64, requester=NOBODY.subject))
        assert (await first).case.asked.requester == NOBODY.subject


async def test_who_is_told_hears_what_is_asked_and_decided(office: Office) -> None:
    await office.settle()
    await office.deny(ID)
    assert [update.state for update in office.told] == [State.PENDING, State.DENIED]


# --- who waits


async def test_who_waits_learns_of_the_grant(office: Office) -> None:
    await office.settle()
    waiting = asyncio.create_task(office.approvals.granted(ID, 60.0))
    await asyncio.sleep(0)
    await office.approve(ID)
    assert await waiting
    assert await office.approvals.granted(ID, 60.0), "also if it was there before"


@pytest.mark.parametrize("end", ["denied", "expired", "closed", "late", "unknown"])
async def test_who_waits_for_nothing_is_let_go(office: Office, end: str) -> None:
    await office.settle()
    seconds, approval_id = (0.0, ID) if end == "late" else (60.0, "0" * 32 if end == "unknown" else ID)
    waiting = asyncio.create_task(office.approvals.granted(approval_id, seconds))
    await asyncio.sleep(0)
    match end:
        case "denied":
            await office.deny(ID)
        case "expired":
            office.clock.advance(60)
            await office.approvals.sweep()
        case "closed":
            office.approvals.close()
        case _:
            pass
    assert not await waiting


async def test_at_the_end_watches_end(office: Office) -> None:
    async with aclosing(office.approvals.watch(ALICE)) as news:
        office.approvals.close()
        with pytest.raises(Draining):
            await anext(news)


async def test_what_else_a_decision_obliges_to_stays(office: Office) -> None:
    obliged = Decision(Verdict.ALLOW, (), "r1", obligations=Obligations((("pids", 1.0),), approval=Approval(60.0, ())))
    await office.settle(decision=obliged)
    await office.approve(ID)
    assert (await office.settle(decision=obliged)).obligations == Obligations((("pids", 1.0),))
