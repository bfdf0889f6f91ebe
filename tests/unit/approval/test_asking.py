import hashlib
from dataclasses import replace

import pytest

from sandboxd.action import ProcessExec
from sandboxd.approval.asking import ANY_OPERATOR, asked, wanted
from sandboxd.approval.binding import Content
from sandboxd.approval.case import MAX_REASONS, MAX_SHOWN_BYTES, MAX_TTL_SECONDS, Asked
from sandboxd.gate import Subject
from sandboxd.model import Approval, Decision, Obligations, Reason, Verdict
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from tests.fakes.policy import CALLER, question, start

RULE = Approval(60.0, ("role:lead",), 2)
DECISION = Decision(Verdict.ESCALATE, (Reason("c", "m"),), "r1", obligations=Obligations(approval=RULE))
ABOUT = Subject(
    ProfileFacts("default", "0" * 64, ()), SandboxFacts("5" * 32, "process"), execution_id="e", trace_id="t"
)


def ask(decision: Decision = DECISION, about: Subject = ABOUT) -> Asked:
    return asked(decision, start(), CALLER, about, question())


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("rule", [None, RULE])
def test_people_are_wanted_where_policy_escalates_or_obliges_and_never_to_undo_a_deny(
    verdict: Verdict, rule: Approval | None
) -> None:
    expected = verdict is Verdict.ESCALATE or (rule is not None and verdict is not Verdict.DENY)
    assert wanted(replace(DECISION, verdict=verdict, obligations=Obligations(approval=rule))) is expected


def test_the_question_says_who_asks_what_and_why() -> None:
    found = ask()
    assert (found.tenant, found.requester, found.method) == (CALLER.tenant, CALLER.subject, CALLER.method)
    assert (found.action_type, found.revision, found.rule, found.reasons) == ("execution.start", "r1", RULE, ("c: m",))
    assert (found.sandbox_id, found.execution_id, found.trace_id, found.runtime) == ("5" * 32, "e", "t", "process")
    assert found.profile == ABOUT.profile


def test_without_a_rule_any_operator_may_decide() -> None:
    assert ask(replace(DECISION, obligations=Obligations())).rule == ANY_OPERATOR
    assert (ANY_OPERATOR.approvers, ANY_OPERATOR.quorum) == ((), 1)


def test_nobody_is_waited_for_longer_than_a_week() -> None:
    forever = replace(DECISION, obligations=Obligations(approval=replace(RULE, ttl_seconds=1e300)))
    assert ask(forever).rule.ttl_seconds == MAX_TTL_SECONDS


def test_an_approver_reads_the_content_or_what_policy_decided_on() -> None:
    assert ask().shown.encode() == question().document
    whole = Content(b"d", b'{"source":"print()"}')
    found = ask(about=replace(ABOUT, content=lambda: whole))
    assert (found.shown, found.shown_bytes) == ('{"source":"print()"}', 20)
    assert found.binding != ask().binding


def test_of_an_exec_in_a_sandbox_an_approver_reads_the_exec_and_not_what_was_started_first() -> None:
    action = ProcessExec("/usr/bin/git", ("git", "push"), "/workspace", 7, 3)
    whole = Content(b"d", b'{"source":"print()"}')
    found = asked(DECISION, action, CALLER, replace(ABOUT, content=lambda: whole), question(action))
    assert found.shown.encode() == question(action).document
    assert found.binding != asked(DECISION, action, CALLER, ABOUT, question(action)).binding


def test_what_is_too_long_to_read_is_cut_and_says_so() -> None:
    long = b"x" * (MAX_SHOWN_BYTES + 1)
    found = ask(about=replace(ABOUT, content=lambda: Content(b"d", long)))
    assert (len(found.shown), found.shown_bytes) == (MAX_SHOWN_BYTES, MAX_SHOWN_BYTES + 1)
    assert found.shown_sha256 == hashlib.sha256(long).hexdigest()


def test_what_is_cut_within_a_character_is_still_seen_to_be_cut() -> None:
    long = b"x" * (MAX_SHOWN_BYTES - 1) + "é}".encode()
    found = ask(about=replace(ABOUT, content=lambda: Content(b"d", long)))
    assert found.shown_bytes > len(found.shown.encode())


def test_reasons_are_bounded() -> None:
    many = replace(DECISION, reasons=(Reason("c", "m" * 9999),) * 99)
    assert len(ask(many).reasons) == MAX_REASONS
    assert max(map(len, ask(many).reasons)) == 512
