import re

from sandboxd.model import Agent, EndReason, Verdict
from sandboxd.redaction.redaction import Redactions
from sandboxd.telemetry.timeline import Step, Timeline, Untraced, span_id
from sandboxd.trace_context import TraceContext, context_of
from tests.unit.redaction.samples import SAMPLES
from tests.unit.telemetry.timelines import ALLOW, CALLED, PARENT, TRACE, ended, ending, timeline


def test_steps_follow_one_another_without_a_gap() -> None:
    over: list[Timeline] = []
    made = Timeline(CALLED, over.append)
    for step in (Step.ADMISSION, Step.DECISION, Step.RUN):
        made.begin(step)
    made.close(ending())
    assert over == [made]
    assert [mark.step for mark in made.marks] == ["admission", "decision", "run"]
    assert made.began <= made.marks[0].began
    assert [mark.ended for mark in made.marks[:-1]] == [mark.began for mark in made.marks[1:]]
    assert made.marks[-1].ended == made.ended


def test_what_is_tidied_up_after_the_answer_is_not_counted() -> None:
    made = timeline()
    made.stop()
    stopped = made.ended
    made.stop()
    made.close(ending())
    assert (made.ended, made.marks[-1].ended) == (stopped, stopped)


def test_a_decision_belongs_to_its_step() -> None:
    made = timeline(steps=(Step.PROFILE, Step.DECISION))
    made.decided(ALLOW, "rego")
    assert made.marks[0].attributes == ()
    assert dict(made.marks[1].attributes) == {
        "opa.verdict": "allow", "opa.engine": "rego", "opa.revision": "r1", "opa.remembered": False,
    }  # fmt: skip


def test_whoever_is_asked_meanwhile_is_told_the_step_under_way() -> None:
    made = Timeline(CALLED, lambda _: None)
    for step in (Step.PROFILE, Step.DECISION):
        made.begin(step)
        parent, state = made.headers
        assert parent == ("traceparent", f"00-{TRACE}-{made.marks[-1].span_id}-01")
        assert state == ("tracestate", "vendor=1")


def test_the_program_is_told_the_span_of_its_own_run() -> None:
    made = timeline(steps=(Step.ACQUIRE,))
    ((name, value),) = made.environment
    made.begin(Step.RUN)
    assert (name, value) == ("TRACEPARENT", f"00-{TRACE}-{made.marks[-1].span_id}-01")


def test_untraced_hands_on_what_the_caller_sent() -> None:
    untraced = Untraced(CALLED)
    assert untraced.headers == (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=1"))
    assert untraced.environment == (("TRACEPARENT", f"00-{TRACE}-{PARENT}-01"),)
    unsampled = Untraced(TraceContext(TRACE, PARENT))
    assert unsampled.environment == (("TRACEPARENT", f"00-{TRACE}-{PARENT}-00"),)


def test_untraced_of_a_caller_in_no_trace_tells_its_program_nothing_and_a_server_the_id_on_record() -> None:
    untraced = Untraced(context_of("", "", lambda: TRACE))
    assert untraced.environment == ()
    ((name, value),) = untraced.headers
    assert name == "traceparent" and re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", value)


def test_span_ids_are_ids_and_differ() -> None:
    ids = {span_id() for _ in range(1000)}
    assert len(ids) == 1000 and all(re.fullmatch("[0-9a-f]{16}", one) for one in ids) and "0" * 16 not in ids


def test_the_end_is_told_by_its_reason() -> None:
    facts = ended(ending(EndReason.EXITED, 3)).facts
    assert (facts.end_reason, facts.exit_code, facts.error_type, facts.verdict) == ("EXITED", 3, "", "allow")
    facts = ended(ending(EndReason.WALL_TIMEOUT, None)).facts
    assert (facts.end_reason, facts.error_type) == ("WALL_TIMEOUT", "WALL_TIMEOUT")


def test_a_refusal_is_told_by_its_code_and_no_end() -> None:
    made = timeline(steps=(Step.ADMISSION,))
    made.close(ending(EndReason.RUNTIME_FAILED, None, refused="slots"))
    assert (made.facts.end_reason, made.facts.error_type, made.facts.verdict) == ("", "slots", "")


def test_a_deny_about_the_profile_is_a_deny() -> None:
    made = timeline(steps=(Step.PROFILE,))
    made.close(ending(EndReason.POLICY_DENIED, None))
    assert (made.facts.verdict, made.facts.error_type) == (str(Verdict.DENY), "POLICY_DENIED")


def test_what_is_taken_out_of_the_record_is_not_told_either() -> None:
    secret = SAMPLES["github-token"].decode()
    redaction = Redactions().demanded(["github-token"])
    agent = Agent(*(f"x {secret} y" for _ in range(4)))
    facts = ended(ending(agent=agent, profile=secret, redaction=redaction)).facts
    assert secret not in repr(facts)
    assert secret in repr(ended(ending(agent=agent, profile=secret)).facts), "the control"


def test_nothing_large_or_secret_is_kept() -> None:
    assert "secret-argument" not in repr(ended(ending()).facts)
