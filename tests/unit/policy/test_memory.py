from dataclasses import replace

import pytest

from sandboxd.model import Decision, Reason, Verdict
from sandboxd.policy.memory import MAX_DECISIONS, MAX_TEXT_CHARS, MAX_TTL_SECONDS, Memory
from tests.fakes.clock import FakeClock

LASTING = Decision(Verdict.ALLOW, (), "r", ttl_seconds=10.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0.0)


@pytest.fixture
def memory(clock: FakeClock) -> Memory:
    return Memory(clock.time)


def test_a_decision_is_recalled_by_its_key_alone(memory: Memory) -> None:
    memory.keep(b"a", LASTING, 0.0)
    assert memory.recall(b"a") == replace(LASTING, remembered=True)
    assert memory.recall(b"b") is None


def test_its_time_counts_from_the_question_and_has_a_ceiling(memory: Memory, clock: FakeClock) -> None:
    clock.now = 4.0
    memory.keep(b"a", LASTING, 0.0)
    memory.keep(b"b", replace(LASTING, ttl_seconds=1e9), 0.0)
    clock.now = 9.9
    assert memory.recall(b"a") is not None
    clock.now = 10.0
    assert memory.recall(b"a") is None
    clock.now = MAX_TTL_SECONDS - 0.1
    assert memory.recall(b"b") is not None
    clock.now = MAX_TTL_SECONDS
    assert memory.recall(b"b") is None


@pytest.mark.parametrize(
    "decision",
    [
        replace(LASTING, ttl_seconds=0.0),
        replace(LASTING, verdict=Verdict.ESCALATE),
        replace(LASTING, message_for_agent="x" * (MAX_TEXT_CHARS + 1)),
        replace(LASTING, reasons=(Reason("c", "x" * MAX_TEXT_CHARS),)),
        replace(LASTING, reasons=(Reason("", ""),) * MAX_TEXT_CHARS),
    ],
    ids=lambda decision: f"{decision.verdict} {decision.ttl_seconds}",
)
def test_what_is_not_to_be_remembered_is_not(memory: Memory, decision: Decision) -> None:
    memory.keep(b"a", decision, 0.0)
    assert memory.recall(b"a") is None


def test_of_too_many_the_one_not_used_for_longest_goes(memory: Memory) -> None:
    for number in range(MAX_DECISIONS):
        memory.keep(b"%d" % number, LASTING, 0.0)
    memory.recall(b"0")
    memory.keep(b"one more", LASTING, 0.0)
    assert memory.recall(b"0") is not None
    assert memory.recall(b"1") is None
    assert memory.recall(b"one more") is not None
