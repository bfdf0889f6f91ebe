import asyncio
from dataclasses import dataclass

import pytest

from sandboxd.admission import Admission
from sandboxd.gate import Gate
from sandboxd.readiness import Readiness, Reason
from tests.fakes.policy import FakeEngine


@dataclass
class Journal:
    well: bool = True

    def available(self) -> bool:
        return self.well


class Node:
    def __init__(self) -> None:
        self.admission = Admission(1, 0, lambda: 0.0)
        self.journal = Journal()
        self.engine = FakeEngine()
        self.gate = Gate(self.engine)
        self.readiness = Readiness(self.admission, self.journal, self.gate)

    def reasons(self) -> tuple[str, ...]:
        return self.readiness.reasons()


async def test_a_node_that_is_well_takes_work_and_asks_policy_nothing() -> None:
    node = Node()
    assert node.reasons() == ()
    await asyncio.sleep(0)
    assert node.engine.asked == node.engine.uses == []


async def test_each_reason_is_told_for_as_long_as_it_holds() -> None:
    node = Node()
    node.journal.well = False
    assert node.reasons() == (Reason.JOURNAL,)
    node.engine.answering = False
    assert node.reasons() == (Reason.JOURNAL, Reason.POLICY)
    node.journal.well = node.engine.answering = True
    assert node.reasons() == ()
    node.admission.drain()
    assert node.reasons() == (Reason.DRAINING,)
    await node.readiness.close()


async def test_reasons_are_words_of_a_closed_set() -> None:
    assert [str(reason) for reason in Reason] == ["draining", "journal_unavailable", "policy_unavailable"]


async def test_an_engine_that_does_not_answer_is_tried_by_who_looks_one_question_at_a_time() -> None:
    node = Node()
    node.engine.answering, node.engine.steps = False, 3
    for _ in range(5):
        node.reasons()
    await asyncio.sleep(0)
    assert len(node.engine.asked) + len(node.engine.uses) == 1
    for _ in range(5):
        await asyncio.sleep(0)
    node.reasons()
    await asyncio.sleep(0)
    assert len(node.engine.asked) + len(node.engine.uses) == 2
    await node.readiness.close()


async def test_an_engine_in_force_since_a_reload_is_the_one_that_counts() -> None:
    node = Node()
    node.engine.answering = False
    assert node.reasons() == (Reason.POLICY,)
    node.gate.replace(FakeEngine())
    assert node.reasons() == ()
    await node.readiness.close()


async def test_an_engine_that_breaks_when_it_is_tried_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.engine.answering, node.engine.use, node.engine.answer = False, KeyError("x"), KeyError("x")
    for number in (1, 2, 3):
        assert node.reasons() == (Reason.POLICY,)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(node.engine.asked) + len(node.engine.uses) == number
    await node.readiness.close()
    assert caplog.records == []


async def test_no_question_is_left_after_the_end() -> None:
    node = Node()
    node.engine.answering, node.engine.steps = False, 1 << 30
    before = asyncio.all_tasks()
    node.reasons()
    await asyncio.sleep(0)
    await node.readiness.close()
    assert asyncio.all_tasks() == before
