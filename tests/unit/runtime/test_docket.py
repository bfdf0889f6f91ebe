"""The questions of one sandbox, put to a mediator that takes its time."""

import asyncio
import errno
from dataclasses import dataclass, field

import pytest

from sandboxd.action import ProcessExec
from sandboxd.model import RefusedCalls
from sandboxd.runtime import docket
from sandboxd.runtime.docket import Docket
from sandboxd.spawner import wire

ID = "e" * 32


def asked(number: int) -> wire.Asked:
    return wire.Asked(number, ID, 7, 1, f"/bin/{number}", ("a", "b"), "/workspace")


def told(count: int) -> wire.CallRefused:
    return wire.CallRefused(ID, 101, 7, errno.EPERM, "profile", count)


@dataclass
class Slow:
    """Answers as the test lets it; `seen` is what it was asked, in order."""

    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    allows: bool = True
    seen: list[ProcessExec | RefusedCalls] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    broken: bool = False

    async def may_exec(self, action: ProcessExec) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.seen.append(action)
        await self.may_go.wait()
        self.at_once -= 1
        if self.broken:
            raise RuntimeError("a defect")
        return self.allows

    async def refused(self, calls: RefusedCalls) -> None:
        self.seen.append(calls)


async def _answered(sent: list[wire.Answered], count: int) -> None:
    while len(sent) < count:
        await asyncio.sleep(0)


async def test_questions_are_put_one_after_the_other_and_each_gets_its_answer() -> None:
    mediator, sent = Slow(), list[wire.Answered]()
    book = Docket(mediator, sent.append)
    for number in (1, 2, 3):
        book.add(asked(number))
    while not mediator.seen:
        await asyncio.sleep(0)
    assert mediator.seen == [ProcessExec("/bin/1", ("a", "b"), "/workspace", 7, 1)]
    mediator.may_go.set()
    await _answered(sent, 3)
    assert sent == [wire.Answered(number, 0) for number in (1, 2, 3)]
    assert mediator.most_at_once == 1


async def test_no_is_an_errno() -> None:
    mediator, sent = Slow(allows=False), list[wire.Answered]()
    mediator.may_go.set()
    Docket(mediator, sent.append).add(asked(4))
    await _answered(sent, 1)
    assert sent == [wire.Answered(4, errno.EACCES)]


async def test_at_the_end_the_question_under_way_is_finished_and_the_others_are_let_go() -> None:
    mediator, sent = Slow(), list[wire.Answered]()
    book = Docket(mediator, sent.append)
    for message in (asked(1), asked(2), told(5)):
        book.add(message)
    settling = asyncio.create_task(book.settle())
    while not mediator.seen:
        await asyncio.sleep(0)
    assert not settling.done()
    mediator.may_go.set()
    await settling
    assert sent == [wire.Answered(1, 0)]
    assert mediator.seen[1:] == [RefusedCalls(101, 7, errno.EPERM, "profile", 5)]


async def test_end_without_a_question_is_at_once() -> None:
    await Docket(Slow(), lambda answer: None).settle()


async def test_init_that_asks_without_end_breaks_the_protocol() -> None:
    mediator = Slow()
    book = Docket(mediator, lambda answer: None)
    for number in range(docket.MOST_WAITING):
        book.add(asked(number))
    with pytest.raises(wire.ProtocolError, match="open questions"):
        book.add(asked(0))
    mediator.may_go.set()
    await book.settle()


async def test_defect_of_the_mediator_is_logged_and_lets_nothing_run(caplog: pytest.LogCaptureFixture) -> None:
    mediator, sent = Slow(broken=True), list[wire.Answered]()
    mediator.may_go.set()
    book = Docket(mediator, sent.append)
    book.add(asked(1))
    while not mediator.seen:
        await asyncio.sleep(0)
    await book.settle()
    await asyncio.sleep(0)  # the worker has ended; its end is told next
    assert sent == []
    assert "a question was not answered" in caplog.text
