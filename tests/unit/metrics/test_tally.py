import pytest

from sandboxd.event import (
    ApprovalConsumed,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    Event,
    ExecutionEnded,
    ExecutionRefused,
    ExecutionStarted,
    PolicyDecided,
    ProcessExecDecided,
)
from sandboxd.metrics.tally import ACTIONS, APPROVALS, BOUNDS, OTHER, Durations, Tally
from sandboxd.model import EndReason, Verdict
from tests.fakes.events import made, violated


def decided(action: str = "execution.start", **values: object) -> Event:
    return made(PolicyDecided, action=action, verdict=Verdict.ALLOW, **values)


def test_decisions_count_by_action_verdict_and_whether_they_were_remembered() -> None:
    tally = Tally()
    for event in (decided(), decided(remembered=True), decided("approval.decide"), decided("approval.decide")):
        tally.count(event)
    tally.count(made(ProcessExecDecided, verdict="deny"))
    assert tally.decisions == {
        ("execution.start", "allow", False): 1,
        ("execution.start", "allow", True): 1,
        ("approval.decide", "allow", False): 2,
        ("process.exec", "deny", False): 1,
    }


def test_every_action_there_is_counts_under_its_name() -> None:
    tally = Tally()
    for action in ACTIONS:
        tally.count(decided(action))
    assert {action for action, _, _ in tally.decisions} == ACTIONS and "net.connect" in ACTIONS


def test_only_failures_of_the_engine_count_as_such() -> None:
    tally = Tally()
    for codes in (("policy_timeout",), ("policy_timeout", "mine"), ("mine",), ()):
        tally.count(decided(reason_codes=codes))
    assert tally.failures == {"policy_timeout": 2}


def test_text_that_others_choose_becomes_no_label() -> None:
    """A policy names its reasons, and a runtime might one day name what it likes."""
    tally = Tally()
    for number in range(100):
        tally.count(made(PolicyDecided, action=f"a{number}", verdict=f"v{number}", reason_codes=(f"r{number}",)))
        tally.count(made(ExecutionRefused, reason=f"r{number}"))
        tally.count(made(ExecutionEnded, end_reason=f"e{number}"))
    assert tally.decisions == {(OTHER, OTHER, False): 100}
    assert (tally.refused, tally.ended, tally.failures) == ({OTHER: 100}, {OTHER: 100}, {})


def test_executions_count_as_started_ended_and_refused() -> None:
    tally = Tally()
    tally.count(made(ExecutionStarted))
    tally.count(made(ExecutionEnded, end_reason=EndReason.EXITED))
    tally.count(made(ExecutionRefused, reason="slots"))
    assert (tally.started, tally.ended, tally.refused) == (1, {"EXITED": 1}, {"slots": 1})


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (ApprovalRequested, "requested"),
        (ApprovalGranted, "granted"),
        (ApprovalDenied, "denied"),
        (ApprovalExpired, "expired"),
        (ApprovalConsumed, "consumed"),
    ],
)
def test_approvals_count_by_what_became_of_them(kind: type[Event], outcome: str) -> None:
    tally = Tally()
    tally.count(made(kind))
    assert tally.approvals == {outcome: 1} and APPROVALS[kind] == outcome


def test_other_events_are_passed_over() -> None:
    tally = Tally()
    before = {name: str(value) for name, value in vars(tally).items()}
    tally.count(violated())
    assert {name: str(value) for name, value in vars(tally).items()} == before


def test_a_duration_is_in_every_bucket_from_its_own_on() -> None:
    durations = Durations()
    for seconds in (0.0, BOUNDS[2], 0.3, 1000.0):
        durations.add(seconds)
    found = dict(durations.cumulative())
    assert [found[bound] for bound in ("0.0001", "0.00025", "0.0005", "0.25", "0.5", "5.0", "+Inf")] == [
        *(1, 1, 2, 2, 3, 3, 4)
    ]
    assert durations.total_seconds == pytest.approx(1000.3 + BOUNDS[2])
