import json

import pytest

from sandboxd.model import Decision, Reason, Verdict
from sandboxd.policy.base import refusal
from sandboxd.policy.document import ACTIONS
from sandboxd.policy.sample import samples


def test_there_is_one_sample_of_each_action() -> None:
    assert [sample.action_type for sample in samples()] == [kind.type for kind in ACTIONS]
    for sample in samples():
        assert json.loads(sample.question.document)["action"]["type"] == sample.action_type


@pytest.mark.parametrize("code", ["policy_malformed", "policy_unavailable", "policy_timeout"])
def test_an_answer_that_is_no_decision_is_objected_to_for_every_action(code: str) -> None:
    for sample in samples():
        assert sample.action_type in sample.objection(refusal(code, "why", "r"))
        assert "why" in sample.objection(refusal(code, "why", "r"))


def test_only_what_every_program_needs_must_have_an_answer() -> None:
    objected = [sample.action_type for sample in samples() if sample.objection(refusal("policy_undefined", "why", "r"))]
    assert objected == ["execution.start", "profile.use"]


def test_a_decision_is_not_objected_to() -> None:
    for decision in (Decision(Verdict.ALLOW, (), "r"), Decision(Verdict.DENY, (Reason("no", "no"),), "r")):
        assert not any(sample.objection(decision) for sample in samples())
