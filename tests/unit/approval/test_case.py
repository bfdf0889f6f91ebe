from dataclasses import replace

import pytest

from sandboxd.approval.case import Case, State, Vote, expires_at, may_approve, may_see, sound, state
from sandboxd.model import Approval, Caller
from tests.fakes.approvals import ALICE, BOB, NOBODY, REQUESTER, STRANGER, asked, case, no, yes

TWO = asked(quorum=2)


@pytest.mark.parametrize(
    ("found", "now", "expected"),
    [
        (case(), 1000.0, State.PENDING),
        (case(), 1059.9, State.PENDING),
        (case(), 1060.0, State.EXPIRED),
        (case(yes()), 1001.0, State.GRANTED),
        (case(yes(at=1059.0)), 1118.9, State.GRANTED),
        (case(yes(at=1059.0)), 1119.0, State.EXPIRED),
        (case(no()), 1001.0, State.DENIED),
        (case(no()), 9999.0, State.DENIED),
        (case(yes(), question=TWO), 1001.0, State.PENDING),
        (case(yes(), question=TWO), 1060.0, State.EXPIRED),
        (case(yes(), yes("uid:7"), question=TWO), 1001.0, State.GRANTED),
        (case(yes(), no("uid:7"), question=TWO), 1001.0, State.DENIED),
    ],
)
def test_the_state_follows_from_votes_and_time(found: Case, now: float, expected: State) -> None:
    assert state(found, now) is expected


def test_a_grant_is_good_for_as_long_again_as_it_could_be_waited_for() -> None:
    assert (expires_at(case()), expires_at(case(yes(at=1050.0)))) == (1060.0, 1110.0)


LEAD = Caller("local", "uid:5", ("lead",), "m")


@pytest.mark.parametrize(
    ("approvers", "caller", "may"),
    [
        ((), ALICE, True),
        ((), NOBODY, False),
        (("role:lead",), LEAD, True),
        (("role:lead",), ALICE, False),
        (("uid:5",), LEAD, True),
        (("uid:55", "lead", "role:", "role:lead ", "operator"), LEAD, False),
        (("role:lead", "uid:0"), ALICE, True),
    ],
)
def test_who_may_approve_is_who_the_policy_names_or_any_operator(
    approvers: tuple[str, ...], caller: Caller, may: bool
) -> None:
    assert may_approve(case(question=asked(approvers=approvers)), caller) is may


def test_a_case_is_seen_by_who_asks_who_decides_and_operators_of_its_tenant() -> None:
    named = case(question=asked(approvers=("uid:99",)))
    assert [may_see(named, who) for who in (REQUESTER, NOBODY, ALICE, BOB, LEAD, STRANGER)] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    assert not may_see(case(), NOBODY)


@pytest.mark.parametrize(
    "impossible",
    [
        case(yes(), yes(), question=TWO),
        case(yes(REQUESTER.subject)),
        case(yes(), yes("uid:7")),
        case(no(), yes("uid:7")),
        case(no(), yes("uid:7"), question=TWO),
        case(yes(at=999.0)),
        case(yes(at=1060.0)),
        case(yes(at=1002.0), yes("uid:7", at=1001.0), question=TWO),
        case(question=asked(quorum=0)),
        case(question=replace(asked(), rule=Approval(0.0, ()))),
        case(question=replace(asked(), rule=Approval(1e12, ()))),
    ],
    ids=range(11),
)
def test_votes_that_cannot_have_come_about_are_told(impossible: Case) -> None:
    assert not sound(impossible)


@pytest.mark.parametrize("votes", [(), (yes(),), (no(),), (yes(), yes("uid:7")), (yes(), no("uid:7"))], ids=range(5))
def test_what_can_have_come_about_is_sound(votes: tuple[Vote, ...]) -> None:
    assert sound(case(*votes, question=TWO))
