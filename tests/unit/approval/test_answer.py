from dataclasses import replace

import pytest

from sandboxd.approval import answer
from sandboxd.model import Approval, Decision, Isolation, Obligations, Reason, Verdict
from tests.fakes.approvals import ESCALATE, case, no, yes

ID = f"{1:032x}"
LIMITED = Obligations((("wall_seconds", 1.0),), Isolation.GVISOR, ("stdout",), Approval(60.0, ()))


@pytest.mark.parametrize(
    ("verdict", "becomes"),
    [
        (Verdict.ESCALATE, Verdict.ALLOW),
        (Verdict.ALLOW, Verdict.ALLOW),
        (Verdict.WARN, Verdict.WARN),
        (Verdict.TRANSFORM, Verdict.TRANSFORM),
    ],
)
def test_a_grant_takes_away_the_demand_for_it_and_nothing_else(verdict: Verdict, becomes: Verdict) -> None:
    decision = replace(ESCALATE, verdict=verdict, obligations=LIMITED, ttl_seconds=60.0)
    granted = answer.granted(decision, case(yes()))
    assert granted.verdict is becomes
    assert granted.obligations == replace(LIMITED, approval=None)
    assert (granted.reasons, granted.revision, granted.approval_id) == (decision.reasons, "r1", ID)
    assert granted.ttl_seconds == 0, "never taken again for an equal question"


@pytest.mark.parametrize(
    ("decision", "code", "approval_id"),
    [
        (answer.pending(ESCALATE, case()), "approval_required", ID),
        (answer.denied(ESCALATE, case(no(comment="use the mirror"))), "approval_denied", ID),
        (answer.flooded(ESCALATE, "why"), "approval_flood", ""),
        (answer.unavailable(ESCALATE, "why"), "approval_unavailable", ""),
    ],
)
def test_whatever_is_no_grant_is_a_deny_with_its_reason_first(decision: Decision, code: str, approval_id: str) -> None:
    assert (decision.verdict, decision.reasons[0].code, decision.approval_id) == (Verdict.DENY, code, approval_id)
    assert decision.reasons[1:] == (Reason("c", "m"),)
    assert decision.message_for_agent


def test_who_waits_is_told_the_id_until_when_and_what_to_do() -> None:
    decision = answer.pending(ESCALATE, case())
    assert ID in decision.reasons[0].message and "1970-01-01T00:17:40Z" in decision.reasons[0].message
    assert ID in decision.message_for_agent and "identical request" in decision.message_for_agent


def test_who_is_refused_is_told_what_the_approver_said() -> None:
    decision = answer.denied(ESCALATE, case(no(comment="use the mirror")))
    assert "use the mirror" in decision.message_for_agent
    assert "uid:0" in decision.reasons[0].message
    assert "uid:0" not in decision.message_for_agent
