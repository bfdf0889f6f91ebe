from dataclasses import dataclass, field
from typing import cast

import pytest

from sandboxd.errors import NotFound, PolicyDenied
from sandboxd.lifecycle import RETAINED_PER_STREAM_BYTES, ExecutionRecord, ExecutionState, Registry
from sandboxd.model import (
    OPERATOR,
    Caller,
    Chunk,
    EndReason,
    EnforcementReport,
    Isolation,
    Outcome,
    OutputFile,
    Stream,
    Usage,
)
from sandboxd.suspension import Suspension

CALLER = Caller("local", "uid:1", (), "x")
STRANGER = Caller("other", "uid:1", (), "x")
NEIGHBOUR = Caller("local", "uid:2", (), "x")
REPORT = EnforcementReport(Isolation.PROCESS, ())


@dataclass
class FakeRunning:
    asked: list[EndReason] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    suspension: Suspension | None = None

    def end(self, reason: EndReason) -> None:
        self.asked.append(reason)

    async def signal(self, signum: int) -> None:
        self.signals.append(signum)


def registry(max_ended: int = 10, max_bytes: int = 1 << 20) -> Registry:
    return Registry(max_ended, max_bytes, lambda: 7.0)


def add(node: Registry, execution_id: str, tenant: str = "local") -> FakeRunning:
    running = FakeRunning()
    node.add(ExecutionRecord(execution_id, "s", tenant, "uid:1", "default", "true", ()), running)
    return running


def outcome(execution_id: str) -> Outcome:
    return Outcome(execution_id, EndReason.EXITED, 0, None, Usage(0.1), files=(OutputFile("big", b"x" * 1000, 0o644),))


def test_command_is_told_as_it_was_redacted() -> None:
    node = registry()
    add(node, "a")
    node.redacted("a", "tr[redacted:x]")
    assert node.get("a", CALLER).command == "tr[redacted:x]"


def test_record_follows_the_execution_through_its_states() -> None:
    node = registry()
    add(node, "a")
    assert node.get("a", CALLER).state is ExecutionState.PREPARING
    assert node.get("a", CALLER).requested_at == 7.0
    node.started("a", REPORT)
    assert node.get("a", CALLER).state is ExecutionState.RUNNING
    assert node.get("a", CALLER).report == REPORT
    node.ended("a", outcome("a"))
    record = node.get("a", CALLER)
    assert (record.state, record.ended_at) == (ExecutionState.ENDED, 7.0)
    assert record.outcome is not None and record.outcome.files == ()
    assert node.living == 0


async def test_foreign_and_unknown_ids_get_the_same_answer() -> None:
    node = registry()
    running = add(node, "a")
    answers = []
    for execution_id, caller in (("a", STRANGER), ("a", NEIGHBOUR), ("b", CALLER)):
        with pytest.raises(NotFound) as got:
            node.get(execution_id, caller)
        with pytest.raises(NotFound):
            node.logs(execution_id, caller)
        with pytest.raises(NotFound):
            await node.kill(execution_id, None, caller)
        answers.append((got.value.reason, got.value.message.replace(execution_id, "?", 1).replace("'b'", "'?'")))
    assert len({reason for reason, _ in answers}) == 1
    assert running.asked == []
    assert node.list(STRANGER) == node.list(NEIGHBOUR) == ()
    assert [record.execution_id for record in node.list(CALLER)] == ["a"]


async def test_operator_sees_and_ends_what_others_run_but_not_that_of_another_tenant() -> None:
    node = registry()
    running = add(node, "a")
    operator = Caller("local", "uid:0", (OPERATOR,), "x")
    assert [record.execution_id for record in node.list(operator)] == ["a"]
    await node.kill("a", None, operator)
    assert running.asked == [EndReason.KILLED]
    assert node.list(Caller("other", "uid:0", (OPERATOR,), "x")) == ()


async def test_kill_asks_for_the_end_and_a_signal_is_only_sent() -> None:
    node = registry()
    running = add(node, "a")
    await node.kill("a", 15, CALLER)
    assert (running.signals, running.asked) == ([15], [])
    await node.kill("a", None, CALLER)
    assert running.asked == [EndReason.KILLED]


async def test_killing_what_has_ended_changes_nothing() -> None:
    node = registry()
    running = add(node, "a")
    node.ended("a", outcome("a"))
    await node.kill("a", None, CALLER)
    assert running.asked == []


def test_head_of_each_stream_is_kept() -> None:
    node = registry(max_bytes=1 << 30)
    add(node, "a")
    node.keep("a", Chunk(Stream.STDOUT, 0, b"out"))
    node.keep("a", Chunk(Stream.STDERR, 0, b"e" * (RETAINED_PER_STREAM_BYTES + 5)))
    node.keep("a", Chunk(Stream.STDERR, 0, b"more"))
    assert node.logs("a", CALLER) == (b"out", b"e" * RETAINED_PER_STREAM_BYTES)


def test_ended_executions_are_bounded_in_number() -> None:
    node = registry(max_ended=2)
    for execution_id in "abc":
        add(node, execution_id)
        node.ended(execution_id, outcome(execution_id))
    assert [record.execution_id for record in node.list(CALLER)] == ["b", "c"]


def test_ended_executions_are_bounded_in_bytes() -> None:
    node = registry(max_bytes=100)
    for execution_id in "abc":
        add(node, execution_id)
        node.keep(execution_id, Chunk(Stream.STDOUT, 0, b"x" * 40))
        node.ended(execution_id, outcome(execution_id))
    assert [record.execution_id for record in node.list(CALLER)] == ["b", "c"]
    add(node, "huge")
    node.keep("huge", Chunk(Stream.STDOUT, 0, b"x" * 101))
    node.ended("huge", outcome("huge"))
    assert node.list(CALLER) == ()


def test_refused_execution_is_forgotten() -> None:
    node = registry()
    add(node, "a")
    node.forget("a")
    assert (node.list(CALLER), node.living) == ((), 0)


def test_every_living_execution_is_asked_at_shutdown() -> None:
    node = registry()
    running = [add(node, "a"), add(node, "b", "other")]
    node.end_all(EndReason.NODE_SHUTDOWN)
    assert [item.asked for item in running] == [[EndReason.NODE_SHUTDOWN]] * 2


def test_known_are_all_whosever_they_are_with_what_can_be_done_to_the_living() -> None:
    node = registry()
    living, ended = add(node, "a"), add(node, "b", tenant="other")
    node.ended("b", outcome("b"))
    found = {record.execution_id: running for record, running in node.known(lambda record: True)}
    assert found == {"a": living, "b": None}
    assert ended.asked == []
    assert node.known(lambda record: record.tenant == "nobody") == ()


async def test_what_is_held_only_an_operator_ends() -> None:
    node = registry()
    running = add(node, "a")
    running.suspension = cast(Suspension, Held())
    for signum in (None, 9):
        with pytest.raises(PolicyDenied) as refused:
            await node.kill("a", signum, CALLER)
        assert refused.value.reason == "quarantined"
    assert (running.asked, running.signals) == ([], [])
    await node.kill("a", None, Caller("local", "uid:0", ("operator",), "x"))
    assert running.asked == [EndReason.KILLED]


@pytest.mark.parametrize("standing", [(True, False), (False, True), (True, True), (False, False)])
def test_whether_it_is_frozen_or_held_is_told_as_it_is_when_asked(standing: tuple[bool, bool]) -> None:
    node = registry()
    running = add(node, "a")
    assert frozen_and_held(node) == [(False, False)] * 3, "it is being launched"
    running.suspension = cast(Suspension, Standing(*standing))
    assert frozen_and_held(node) == [standing] * 3
    running.suspension = cast(Suspension, Standing(frozen=False, held=False))
    assert frozen_and_held(node) == [(False, False)] * 3, "it was let go on"


def test_what_ended_while_it_was_held_is_told_as_ended_alone() -> None:
    node = registry()
    add(node, "a").suspension = cast(Suspension, Held())
    node.ended("a", outcome("a"))
    assert frozen_and_held(node) == [(False, False)] * 3


def frozen_and_held(node: Registry) -> list[tuple[bool, bool]]:
    """Of the execution `a`, by each way to ask."""
    ((known, _),) = node.known(lambda record: True)
    return [(record.frozen, record.held) for record in (node.get("a", CALLER), *node.list(CALLER), known)]


@dataclass
class Standing:
    frozen: bool
    held: bool


class Held:
    frozen = True
    held = True
