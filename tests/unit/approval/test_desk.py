from dataclasses import replace

import pytest

from sandboxd.approval.case import MAX_COMMENT_CHARS, Case, State, Vote, state
from sandboxd.approval.desk import MAX_CASES, Desk, Fatigue
from sandboxd.errors import InvalidRequest, NotFound, PolicyDenied, SandboxdError
from sandboxd.model import Caller
from tests.fakes.approvals import ALICE, BOB, NOBODY, REQUESTER, STRANGER, asked, case, no, yes

ONE = f"{1:032x}"
LAVISH = Fatigue(MAX_CASES * 2, MAX_CASES * 2)


def desk(*cases: Case, fatigue: Fatigue = LAVISH) -> Desk:
    return Desk(fatigue, cases)


def vote(at: Desk, caller: Caller = ALICE, now: float = 1001.0, comment: str = "") -> Case:
    return at.voted(ONE, caller, approve=True, comment=comment, now=now)


def refusal(at: Desk, caller: Caller = ALICE, now: float = 1001.0) -> SandboxdError:
    with pytest.raises(SandboxdError) as caught:
        vote(at, caller, now)
    return caught.value


def test_a_case_is_found_by_exactly_what_it_is_bound_to() -> None:
    found = desk(case(), case(question=asked("c" * 64), number=2))
    assert [found.about(binding * 64) and found.about(binding * 64).approval_id[-1] for binding in "bcd"] == [  # type: ignore[union-attr]
        "1", "2", None,
    ]  # fmt: skip


def test_what_is_dropped_is_gone_and_takes_no_other_with_it() -> None:
    found = desk(case())
    found.put(case(number=2))  # bound to the same, asked anew
    found.drop(case())
    assert found.about("b" * 64) == case(number=2)
    assert [kept.approval_id for kept in found] == [f"{2:032x}"]


def test_a_vote_changes_nothing_until_it_is_put() -> None:
    found = desk(case())
    voted = vote(found, comment="x" * 600)
    assert (voted.votes, found.about("b" * 64)) == (
        (Vote("uid:0", True, "x" * MAX_COMMENT_CHARS, 1001.0),),
        case(),
    )
    found.put(voted)
    assert state(found.seen(ONE, ALICE), 1001.0) is State.GRANTED


@pytest.mark.parametrize("subject", [REQUESTER, replace(REQUESTER, roles=("operator",), method="m")], ids=str)
def test_the_requester_never_decides_about_himself_whatever_he_is_by_now(subject: Caller) -> None:
    assert refusal(desk(case()), subject).reason == "own_request"
    by_name = desk(case(question=asked(approvers=(REQUESTER.subject, "role:operator"))))
    assert refusal(by_name, subject).reason == "own_request"


def test_who_is_not_named_does_not_decide() -> None:
    assert refusal(desk(case(question=asked(approvers=("uid:7",)))), ALICE).reason == "not_an_approver"


@pytest.mark.parametrize("caller", [NOBODY, STRANGER], ids=str)
def test_who_may_not_see_a_case_is_told_that_there_is_none(caller: Caller) -> None:
    unknown = refusal(desk(), ALICE)
    hidden = refusal(desk(case()), caller)
    assert isinstance(hidden, NotFound) and (hidden.reason, hidden.message) == (unknown.reason, unknown.message)


def test_an_approver_has_one_vote() -> None:
    two = desk(case(yes(), question=asked(quorum=2)))
    assert refusal(two, ALICE).reason == "already_voted"
    assert state(vote(two, BOB), 1001.0) is State.GRANTED


@pytest.mark.parametrize(
    ("votes", "now", "reason"),
    [
        ((), 1060.0, "approval_expired"),
        ((yes("uid:8"),), 1062.0, "approval_expired"),
        ((yes("uid:8"),), 1002.0, "already_decided"),
        ((no("uid:8"),), 1002.0, "already_decided"),
        ((no("uid:8"),), 9999.0, "already_decided"),
    ],
)
def test_nothing_is_decided_after_the_end(votes: tuple[Vote, ...], now: float, reason: str) -> None:
    error = refusal(desk(case(*votes)), now=now)
    assert isinstance(error, InvalidRequest) and error.reason == reason


def test_own_request_and_no_approver_are_denials() -> None:
    assert isinstance(refusal(desk(case()), REQUESTER), PolicyDenied)


def test_so_many_may_be_pending_for_one_requester_and_no_more() -> None:
    found = desk(*(case(question=asked(str(n)), number=n) for n in range(3)), fatigue=Fatigue(3, 1000))
    assert "3 approvals pending" in found.flooded(asked("new"), 1001.0)
    assert found.flooded(asked("new", requester="uid:2"), 1001.0) == "", "another requester is not held to it"
    found.put(case(no(), question=asked("0"), number=0))
    assert found.flooded(asked("new"), 1002.0) == "", "what is decided is not pending"


def test_so_many_may_be_asked_for_within_a_minute_and_no_more() -> None:
    found = desk(fatigue=Fatigue(1000, 2))
    assert [bool(found.flooded(asked(str(n)), 1000.0 + n)) for n in range(4)] == [False, False, True, True]
    assert not found.flooded(asked("new", requester="uid:2"), 1003.0)
    assert [bool(found.flooded(asked(str(n)), 1060.0)) for n in range(2)] == [False, True], "the first is a minute ago"


def test_requesters_who_do_not_ask_any_more_are_forgotten() -> None:
    found = desk()
    for number in range(50):
        found.flooded(asked(requester=f"uid:{number}"), 1000.0)
    found.flooded(asked(), 2000.0)
    assert len(found._asked_at) == 1


def test_a_node_keeps_so_many_cases_and_no_more() -> None:
    found = desk(*(case(no(), question=asked(str(n)), number=n) for n in range(MAX_CASES)))
    assert str(MAX_CASES) in found.flooded(asked("new"), 1001.0)


def test_what_is_over_and_when_the_next_is() -> None:
    found = desk(case(), case(yes(at=1050.0), question=asked("c"), number=2))
    assert (found.over(1059.0), found.next_end()) == ((), 1060.0)
    assert [over.approval_id[-1] for over in found.over(1109.0)] == ["1"]
    assert len(found.over(1110.0)) == 2
    assert desk().next_end() is None
