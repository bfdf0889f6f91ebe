import json
from pathlib import Path

import pytest

from sandboxd.approval.case import State
from sandboxd.errors import InvalidRequest, NotFound, PolicyDenied
from sandboxd.event import ApprovalRefused, PolicyDecided
from sandboxd.gate import Gate
from sandboxd.model import Approval, Caller, Decision, Obligations, Reason, Verdict
from sandboxd.voting import Voting
from tests.fakes.approvals import ALICE, NOBODY, REQUESTER, Office, asked
from tests.fakes.policy import FakeEngine

ID = f"{1:032x}"
TRACE = "7" * 32


@pytest.fixture
async def office(tmp_path: Path) -> Office:
    """With one question pending."""
    office = Office(tmp_path / "approvals")
    await office.settle()
    office.record.events.clear()
    return office


def voting(office: Office, engine: FakeEngine) -> Voting:
    return Voting(Gate(engine, approvals=office.approvals), office.approvals, office.record)


async def vote(office: Office, engine: FakeEngine, caller: Caller = ALICE, *, approve: bool = True) -> State:
    return (await voting(office, engine).vote(ID, caller, TRACE, approve=approve, comment="x")).state


@pytest.mark.parametrize(("approve", "state"), [(True, State.GRANTED), (False, State.DENIED)])
async def test_a_vote_is_an_action_on_record_before_it_counts(office: Office, approve: bool, state: State) -> None:
    engine = FakeEngine()
    assert await vote(office, engine, approve=approve) is state
    assert office.record.rules == ["policy.decided", f"approval.{state}"]
    decided = office.record.events[0]
    assert isinstance(decided, PolicyDecided)
    assert (decided.action, decided.subject, decided.trace_id) == ("approval.decide", "uid:0", TRACE)
    (question,) = engine.asked
    document = json.loads(question.document)
    assert document["action"] == {
        "type": "approval.decide",
        "approval_id": ID,
        "approve": approve,
        "action_type": "execution.start",
        "action_sha256": "b" * 64,
        "requester": "uid:1000",
    }
    assert document["profile"]["labels"] == {"team": "a"}


async def test_policy_can_refuse_a_vote(office: Office) -> None:
    engine = FakeEngine(Decision(Verdict.DENY, (Reason("no", "no"),), "r1"))
    with pytest.raises(PolicyDenied) as caught:
        await vote(office, engine)
    assert caught.value.reason == "no"
    assert office.approvals.case(ID, ALICE).votes == ()


@pytest.mark.parametrize(
    "answer",
    [
        Decision(Verdict.ESCALATE, (), "r1"),
        Decision(Verdict.ALLOW, (), "r1", obligations=Obligations(approval=Approval(60.0, ()))),
        RuntimeError("dead"),
    ],
    ids=str,
)
async def test_no_approval_is_asked_for_to_decide_about_one(office: Office, answer: object) -> None:
    with pytest.raises(PolicyDenied):
        await vote(office, FakeEngine(answer))
    assert (len(list(office.desk)), office.approvals.case(ID, ALICE).votes) == (1, ())


async def test_the_requester_cannot_decide_although_policy_lets_it(office: Office) -> None:
    with pytest.raises(PolicyDenied) as caught:
        await vote(office, FakeEngine(), Caller("local", REQUESTER.subject, ("operator",), "m"))
    assert caught.value.reason == "own_request"
    refused = office.record.events[-1]
    assert isinstance(refused, ApprovalRefused)
    assert (refused.subject, refused.reason, refused.approve) == (REQUESTER.subject, "own_request", True)


async def test_a_second_vote_and_one_after_the_end_are_refused_on_record(office: Office) -> None:
    await vote(office, FakeEngine())
    with pytest.raises(InvalidRequest):
        await vote(office, FakeEngine())
    assert office.record.rules[-1] == "approval.refused"


async def test_who_may_not_see_it_is_not_even_put_to_policy(office: Office) -> None:
    engine = FakeEngine()
    with pytest.raises(NotFound):
        await vote(office, engine, NOBODY)
    assert (engine.asked, office.record.events) == ([], [])


async def test_a_question_keeps_its_profile_for_the_policy(office: Office) -> None:
    assert office.approvals.case(ID, ALICE).asked == asked()
