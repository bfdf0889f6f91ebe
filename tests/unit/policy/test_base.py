import pytest

from sandboxd.model import Approval, Isolation, Obligations, Reason, Verdict
from sandboxd.policy.base import UNDEFINED, decode_decision

WHOLE = {
    "verdict": "transform",
    "reasons": [{"code": "c", "message": "m"}],
    "message_for_agent": "be brief",
    "obligations": {
        "limits": {"wall_seconds": 5, "memory_bytes": 1024},
        "runtime_floor": "gvisor",
        "redact": ["stdout"],
        "approval": {"ttl_seconds": 60, "approvers": ["role:lead"], "quorum": 2},
    },
    "ttl_seconds": 1.5,
}


def test_a_whole_decision_is_decoded() -> None:
    decision = decode_decision(WHOLE, "r1")
    assert (decision.verdict, decision.revision, decision.message_for_agent) == (Verdict.TRANSFORM, "r1", "be brief")
    assert decision.reasons == (Reason("c", "m"),)
    assert decision.obligations == Obligations(
        (("wall_seconds", 5.0), ("memory_bytes", 1024.0)),
        Isolation.GVISOR,
        ("stdout",),
        Approval(60.0, ("role:lead",), 2),
    )
    assert decision.ttl_seconds == 1.5


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.TRANSFORM])
def test_each_verdict_needs_nothing_besides_itself(verdict: Verdict) -> None:
    assert decode_decision({"verdict": verdict.value}, "r1").verdict is verdict


def test_true_allows_and_false_denies() -> None:
    assert decode_decision(True, "r1").verdict is Verdict.ALLOW
    assert decode_decision(False, "r1").verdict is Verdict.DENY


def test_undefined_is_denied_as_such() -> None:
    decision = decode_decision(UNDEFINED, "r1")
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_undefined")


@pytest.mark.parametrize(
    "answer",
    [
        None, 1, 1.0, "true", "allow", [], [True], {}, {"allow": True}, {"result": True}, {"result": WHOLE},
        {"verdict": None}, {"verdict": True}, {"verdict": "Allow"}, {"verdict": "allow "}, {"verdict": ["allow"]},
        {"verdict": "allow", "unknown": 1},
        {"verdict": "allow", "reasons": None}, {"verdict": "allow", "reasons": {}},
        {"verdict": "allow", "reasons": ["c"]}, {"verdict": "allow", "reasons": [{"code": "c"}]},
        {"verdict": "allow", "reasons": [{"code": "c", "message": 1}]},
        {"verdict": "allow", "reasons": [{"code": "c", "message": "m", "more": 1}]},
        {"verdict": "allow", "message_for_agent": None},
        {"verdict": "allow", "ttl_seconds": True}, {"verdict": "allow", "ttl_seconds": -1},
        {"verdict": "allow", "ttl_seconds": float("nan")}, {"verdict": "allow", "ttl_seconds": float("inf")},
        {"verdict": "allow", "ttl_seconds": "1"}, {"verdict": "allow", "ttl_seconds": 10**400},
        {"verdict": "allow", "obligations": None}, {"verdict": "allow", "obligations": []},
        {"verdict": "allow", "obligations": {"more": 1}},
        {"verdict": "allow", "obligations": {"limits": {"no_such_limit": 1}}},
        {"verdict": "allow", "obligations": {"limits": {"idle_seconds": 0}}},
        {"verdict": "allow", "obligations": {"limits": {"wall_seconds": "5"}}},
        {"verdict": "allow", "obligations": {"limits": {"wall_seconds": -5}}},
        {"verdict": "allow", "obligations": {"runtime_floor": "vm"}},
        {"verdict": "allow", "obligations": {"redact": "stdout"}},
        {"verdict": "allow", "obligations": {"approval": {"approvers": ["a"]}}},
        {"verdict": "allow", "obligations": {"approval": {"ttl_seconds": 1, "approvers": "a"}}},
        {"verdict": "allow", "obligations": {"approval": {"ttl_seconds": 0}}},
        {"verdict": "allow", "obligations": {"approval": {"ttl_seconds": 1, "quorum": 0}}},
        {"verdict": "allow", "obligations": {"approval": {"ttl_seconds": 1, "quorum": 17}}},
        {"verdict": "allow", "obligations": {"approval": {"ttl_seconds": 1, "quorum": 1.5}}},
        {"verdict": "allow", "obligations": {"approval": {"ttl_seconds": 1, "quorum": True}}},
        {"verdict": "transform"}, {"verdict": "transform", "obligations": {}},
    ],
)  # fmt: skip
def test_any_other_shape_is_denied_as_malformed(answer: object) -> None:
    decision = decode_decision(answer, "r1")
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_malformed")
    assert decision.revision == "r1"


def test_one_approver_is_enough_where_policy_asks_for_no_number() -> None:
    decision = decode_decision({"verdict": "escalate", "obligations": {"approval": {"ttl_seconds": 60}}}, "r1")
    assert decision.obligations.approval == Approval(60.0, (), 1)


@pytest.mark.parametrize("value", [{"verdict": "x" * 100_000}, {"verdict": "allow", "y" * 100_000: 1}])
def test_of_a_long_wrong_answer_only_the_beginning_is_told(value: object) -> None:
    (reason,) = decode_decision(value, "r").reasons
    assert reason.code == "policy_malformed"
    assert len(reason.message) < 300
