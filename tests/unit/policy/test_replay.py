import json
from collections import Counter

import pytest

from sandboxd.model import Approval, Decision, Obligations, Reason, Verdict
from sandboxd.policy.base import refusal
from sandboxd.policy.replay import APPROVAL, Outcome, Past, Result, reads_redacted, replay
from sandboxd.redaction.document import REDACTED
from tests.fakes.policy import FakeEngine

MODULES = (("p.rego", "package sandboxd\n\ndecision if input.action.argv[0]\n"),)
A, B = "a" * 64, "b" * 64
ALLOW = Decision(Verdict.ALLOW, (), "new")
DENY = Decision(Verdict.DENY, (Reason("because", ""),), "new")


def past(verdict: str = "allow", digest: str = A, codes: tuple[str, ...] = ()) -> Past:
    return Past("execution.start", digest, verdict, codes)


async def one(item: Past, answer: object, document: bytes = b"{}") -> Result:
    (result,) = await replay(FakeEngine(answer), MODULES, Counter([item, item]), [(item.input_sha256, document)])
    assert result.count == 2
    return result


async def test_same_and_changed_verdicts_are_told() -> None:
    assert (await one(past(), ALLOW)).outcome is Outcome.SAME
    changed = await one(past(), DENY)
    assert (changed.outcome, changed.then, changed.now) == (Outcome.CHANGED, "allow", "deny")
    assert changed.reason_codes == ("because",)
    assert (await one(past("deny", codes=("other",)), DENY)).outcome is Outcome.SAME


@pytest.mark.parametrize(
    "answer",
    [
        Decision(Verdict.ESCALATE, (), "new"),
        Decision(Verdict.ALLOW, (), "new", obligations=Obligations(approval=Approval(60.0, ()))),
    ],
)
async def test_what_people_decide_is_neither_an_allow_nor_a_deny(answer: Decision) -> None:
    assert (await one(past("deny", codes=("approval_required",)), answer)).outcome is Outcome.SAME
    assert (await one(past("allow"), answer)).now == APPROVAL
    was = await one(past("deny", codes=("approval_required",)), ALLOW)
    assert (was.outcome, was.then, was.now) == (Outcome.CHANGED, APPROVAL, "allow")


async def test_each_document_is_decided_once_for_all_that_was_decided_on_it() -> None:
    engine = FakeEngine(ALLOW)
    items = Counter({past("allow"): 3, past("deny"): 2, past("allow", B): 1})
    results = await replay(engine, MODULES, items, [(A, b"{}"), (B, b"{}")])
    assert len(engine.asked) == 2
    assert {(result.past.input_sha256, result.then, result.outcome, result.count) for result in results} == {
        (A, "allow", Outcome.SAME, 3),
        (A, "deny", Outcome.CHANGED, 2),
        (B, "allow", Outcome.SAME, 1),
    }


async def test_what_is_not_in_the_store_is_missing() -> None:
    (result,) = await replay(FakeEngine(ALLOW), MODULES, Counter([past("deny")]), [])
    assert result.outcome is Outcome.MISSING


async def test_what_no_policy_decided_then_is_no_change() -> None:
    assert (await one(past("deny", codes=("policy_timeout",)), ALLOW)).outcome is Outcome.UNDECIDED


async def test_what_the_engine_cannot_answer_is_undecidable() -> None:
    assert (await one(past(), refusal("policy_timeout", "late", "new"))).outcome is Outcome.UNDECIDABLE


async def test_redacted_document_is_decided_only_if_the_policy_reads_nothing_of_that() -> None:
    taken = {REDACTED: "sha256:0"}
    unread = json.dumps({"action": {"stdin": taken, "argv": ["x"]}}).encode()
    read = json.dumps({"action": {"argv": ["x", taken]}}).encode()
    assert (await one(past(), DENY, unread)).outcome is Outcome.CHANGED
    assert (await one(past(), DENY, read)).outcome is Outcome.UNDECIDABLE
    whole = json.dumps({"action": taken}).encode()
    assert (await one(past(), DENY, whole)).outcome is Outcome.UNDECIDABLE


def test_text_that_only_looks_redacted_is_not() -> None:
    assert not reads_redacted(MODULES, json.dumps({"action": {"argv": [REDACTED]}}).encode())
    assert not reads_redacted(MODULES, json.dumps({"action": {"argv": [{REDACTED: 1, "more": 2}]}}).encode())
    assert reads_redacted(MODULES, f'{{"{REDACTED}'.encode())
