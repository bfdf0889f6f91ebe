import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from sandboxd import refusals
from sandboxd.errors import AuditUnavailable, Draining
from sandboxd.event import ExecutionRefused, PolicyDecided
from sandboxd.model import Caller, Decision, Reason, Verdict
from sandboxd.profile.load import load_profiles
from sandboxd.refusals import MAX_REASONS, OTHER, Refusals
from tests.fakes.recorder import FakeRecorder
from tests.unit.test_execution import CALLER, PROFILES, REQUEST, Node

ONE = Caller("local", "uid:1", (), "Execute")
TWO = Caller("local", "uid:2", (), "Execute")


def refused(caller: Caller = ONE, reason: str = "rate", execution: str = "e1") -> ExecutionRefused:
    return ExecutionRefused(caller.tenant, caller.subject, execution, "s", "", "t", reason, "no")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def told(made: Refusals, record: Callable[[ExecutionRefused], Awaitable[object]]) -> None:
    """As when the daemon ends."""
    task = asyncio.create_task(made.run(record))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_share_is_each_callers_own_and_comes_back() -> None:
    clock = Clock()
    made = Refusals(3, clock)
    for _ in range(3):
        assert not made.are_counted(ONE)
        made.recorded(ONE)
    assert (made.are_counted(ONE), made.are_counted(TWO)) == (True, False)
    clock.now = 20.0
    assert not made.are_counted(ONE)
    made.recorded(ONE)
    assert made.are_counted(ONE)
    clock.now = 1e6
    for _ in range(3):
        made.recorded(ONE)
    assert made.are_counted(ONE)


async def test_what_is_counted_is_put_on_record_as_the_last_of_its_kind() -> None:
    made, recorder = Refusals(1, Clock()), FakeRecorder()
    for number in range(5):
        made.count(refused(execution=f"e{number}"))
    made.count(refused(TWO))
    made.count(refused(reason="slots"))
    await told(made, recorder.record)
    counts = {(e.subject, e.reason): (e.execution_id, e.count, e.suppressed) for e in recorder.events}  # type: ignore[attr-defined]
    assert counts == {
        ("uid:1", "rate"): ("e4", 5, 4),
        ("uid:2", "rate"): ("e1", 1, 0),
        ("uid:1", "slots"): ("e1", 1, 0),
    }
    await told(made, recorder.record)
    assert len(recorder.events) == 3


async def test_what_cannot_be_written_is_told_later_with_what_came_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    made, recorder = Refusals(1, Clock()), FakeRecorder(refuses=frozenset({"*"}))
    made.count(refused(execution="e1"))
    await told(made, recorder.record)
    assert "not on record yet" in caplog.text
    made.count(refused(execution="e2"))
    recorder.refuses = frozenset()
    await told(made, recorder.record)
    (event,) = recorder.events
    assert isinstance(event, ExecutionRefused)
    assert (event.execution_id, event.count, event.suppressed) == ("e2", 2, 1)


async def test_reasons_that_a_policy_makes_up_are_bounded_and_none_is_lost() -> None:
    made, recorder = Refusals(1, Clock()), FakeRecorder()
    for number in range(1000):
        made.count(refused(reason=f"r{number}"))
    await told(made, recorder.record)
    assert len(recorder.events) == MAX_REASONS + 1
    assert sum(event.count for event in recorder.events if isinstance(event, ExecutionRefused)) == 1000
    assert recorder.events[-1].reason == OTHER  # type: ignore[attr-defined]


async def test_callers_are_bounded_but_what_is_owed_of_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_CALLERS", 3)
    made, recorder = Refusals(1, Clock()), FakeRecorder()
    made.count(refused())
    for number in range(9):
        made.recorded(Caller("local", f"other:{number}", (), "Execute"))
    await told(made, recorder.record)
    assert [event.subject for event in recorder.events] == ["uid:1"]
    assert not made.are_counted(Caller("local", "other:0", (), "Execute"))
    assert made.are_counted(Caller("local", "other:8", (), "Execute"))


# What one caller's refusals take of the record.


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node(load_profiles([PROFILES]))
    yield made
    await made.analyser.close()


async def counted(node: Node) -> list[ExecutionRefused]:
    """What is put on record of those that were only counted."""
    node.recorder.events.clear()
    task = asyncio.create_task(node.refusals.run(node.recorder.record))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    return [event for event in node.recorder.events if isinstance(event, ExecutionRefused)]


async def test_a_caller_that_is_refused_all_the_time_does_not_fill_the_record(node: Node) -> None:
    node.admission.drain()
    for _ in range(50):
        assert (await node.refusal()).reason == "draining"
    assert node.rules == ["execution.requested", "execution.refused"] * 3
    documents = len(node.recorder.documents)
    (event,) = await counted(node)
    assert (event.reason, event.count, event.suppressed) == ("draining", 47, 46)
    assert event.execution_id and event.tenant == "local"
    assert len(node.recorder.documents) == documents


async def test_nor_does_one_whom_policy_denies(node: Node) -> None:
    node.engine.answer = Decision(Verdict.DENY, (Reason("never", "no"),), "fake-1")
    for _ in range(20):
        assert (await node.refusal()).reason == "never"
    assert node.rules == ["execution.requested", "policy.decided", "policy.decided", "execution.ended"] * 3
    (event,) = await counted(node)
    assert (event.reason, event.count) == ("never", 17)


async def test_what_runs_is_on_record_whole_however_often_its_caller_was_refused(node: Node) -> None:
    no, node.engine.answer = Decision(Verdict.DENY, (Reason("never", "no"),), "fake-1"), node.engine.answer
    yes, node.engine.answer = node.engine.answer, no
    for _ in range(5):
        await node.refusal()
    node.engine.answer = yes
    node.recorder.events.clear()
    node.recorder.documents.clear()
    await node.items()
    assert node.rules == [
        "execution.requested",
        "policy.decided",
        "policy.decided",
        "execution.started",
        "execution.ended",
    ]
    stored = {event.input_sha256 for event in node.recorder.events if hasattr(event, "input_sha256")}
    assert stored <= set(node.recorder.documents) and "" not in stored


async def test_nothing_runs_if_what_was_held_back_cannot_be_written(node: Node) -> None:
    node.engine.answer = Decision(Verdict.DENY, (Reason("never", "no"),), "fake-1")
    for _ in range(5):
        await node.refusal()
    node.engine.answer = Decision(Verdict.ALLOW, (), "fake-1")
    node.recorder.refuses = frozenset({"policy.decided"})
    assert isinstance(await node.refusal(), AuditUnavailable)
    assert node.runtime.alive == set()


async def test_other_callers_refusals_are_on_record_one_by_one(node: Node) -> None:
    node.admission.drain()
    for _ in range(5):
        await node.refusal()
    node.recorder.events.clear()
    other = replace(CALLER, subject="uid:7")
    with pytest.raises(Draining):
        [_ async for _ in node.executor.execute(REQUEST, other)]
    assert node.rules == ["execution.requested", "execution.refused"]


async def test_no_program_runs_on_an_answer_of_which_no_record_was_written(node: Node) -> None:
    """The use of a profile that was allowed to one who was then refused, and whose refusals are only counted."""
    node.engine.repeatable = True
    node.engine.use = Decision(Verdict.ALLOW, (), "fake-1", ttl_seconds=60.0)
    yes, no = node.engine.answer, Decision(Verdict.DENY, (Reason("never", "no"),), "fake-1")
    node.engine.answer = no
    for _ in range(5):
        await node.refusal()
    node.executor.gate.forget()
    node.recorder.events.clear()
    await node.refusal()
    node.engine.answer = yes
    await node.items()
    actions = [event.action for event in node.recorder.events if isinstance(event, PolicyDecided)]
    assert actions.count("profile.use") == 1
    assert node.rules[-1] == "execution.ended"
