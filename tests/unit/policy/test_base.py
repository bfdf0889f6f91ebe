import json
from dataclasses import replace

import pytest

from sandboxd.model import Caller, Isolation, Obligations, Reason, Verdict
from sandboxd.policy.base import UNDEFINED, SandboxFacts, action_input, decode_decision
from tests.fakes.policy import CALLER, question, start

WHOLE = {
    "verdict": "transform",
    "reasons": [{"code": "c", "message": "m"}],
    "message_for_agent": "be brief",
    "obligations": {
        "limits": {"wall_seconds": 5, "memory_bytes": 1024},
        "runtime_floor": "gvisor",
        "redact": ["stdout"],
        "approval": {"ttl_seconds": 60, "approvers": ["role:lead"]},
    },
    "ttl_seconds": 1.5,
}


def test_a_whole_decision_is_decoded() -> None:
    decision = decode_decision(WHOLE, "r1")
    assert (decision.verdict, decision.revision, decision.message_for_agent) == (Verdict.TRANSFORM, "r1", "be brief")
    assert decision.reasons == (Reason("c", "m"),)
    assert decision.obligations == Obligations(
        (("wall_seconds", 5.0), ("memory_bytes", 1024.0)), Isolation.GVISOR, ("stdout",)
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
        {"verdict": "transform"}, {"verdict": "transform", "obligations": {}},
    ],
)  # fmt: skip
def test_any_other_shape_is_denied_as_malformed(answer: object) -> None:
    decision = decode_decision(answer, "r1")
    assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_malformed")
    assert decision.revision == "r1"


def test_input_has_the_documented_keys_and_no_code() -> None:
    document = json.loads(question().document)
    assert set(document) == {"action", "caller", "profile", "sandbox", "node", "time", "api_version"}
    assert document["action"]["type"] == "execution.start"
    assert document["action"]["limits"]["wall_seconds"] == 30.0
    assert document["sandbox"]["seen"] == {"secret": False, "untrusted_input": False, "egress": False}


def test_input_keeps_letters_as_they_are_written() -> None:
    assert "é" in question(start(argv=("é",))).document.decode()


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        question(start(argv=("\ud800",)))


def keyed(caller: Caller = CALLER, *, sandbox: SandboxFacts, time: str = "t") -> bytes:
    return action_input(start(), caller, "default", "0" * 64, (), sandbox, "node", time).key


def test_the_moment_is_no_part_of_the_key() -> None:
    fresh = keyed(sandbox=SandboxFacts("0" * 32, "process"))
    assert keyed(sandbox=SandboxFacts("1" * 32, "process", age_seconds=7.5), time="later") == fresh


FRESH = SandboxFacts("0" * 32, "process")


@pytest.mark.parametrize(
    "later",
    [replace(FRESH, seen_secret=True), replace(FRESH, seen_untrusted_input=True), replace(FRESH, seen_egress=True)],
    ids=str,
)
def test_an_allow_does_not_outlive_what_the_sandbox_has_seen(later: SandboxFacts) -> None:
    assert keyed(sandbox=later) != keyed(sandbox=FRESH)


def test_a_caller_cannot_write_one_question_as_another() -> None:
    facts = SandboxFacts("0" * 32, "process")
    odd = replace(CALLER, subject='uid:0","roles":[],"method":"x"},"node":"')
    assert keyed(odd, sandbox=facts) != keyed(sandbox=facts)
    document = action_input(start(), odd, "default", "0" * 64, (), facts, 'n"', "t").document
    assert json.loads(document)["caller"]["subject"] == odd.subject
    assert json.loads(document)["sandbox"]["id"] == "0" * 32
    assert (json.loads(document)["node"], json.loads(document)["time"]) == ('n"', "t")
