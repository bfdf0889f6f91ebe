"""The stock of blanks with births that the test lets succeed or fail. Its processes are forks that only wait."""

import os
import resource
import selectors
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from sandboxd.spawner import stock
from sandboxd.spawner.blank import BirthFailed, Blank
from sandboxd.spawner.cgroup_base import Cgroup, NoTree
from sandboxd.spawner.ids import IdBlock, IdPool
from sandboxd.spawner.plans import Prepared
from tests.unit.spawner.spawner_rig import PREPARED, TEMPLATE

A = PREPARED
B = replace(A, shape=replace(A.shape, view="/views/b"), template=replace(TEMPLATE, name="other"))
LARGER_A = replace(A, template=replace(TEMPLATE, name="larger"))


def _prepared(*each: Prepared) -> dict[str, Prepared]:
    """The first is the default, of which the stock is made before anybody asks."""
    default = replace(each[0], template=replace(each[0].template, name="default"))
    return {one.shape.view: one for one in (default, *each[1:])}


class FakeBlank(Blank):
    """Ready as soon as it says a byte; a failure if the byte is an x."""

    def advance(self) -> None:
        if self.sock.recv(1) == b"x":
            raise BirthFailed("the step that failed")
        self.ready = True


class Births:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
        monkeypatch.setattr(stock, "begin", self.begin)
        self.born: list[Blank] = []
        self.word = b"r"
        self.selector = selectors.DefaultSelector()
        self.ids = IdPool(1000, 1000, (blocks + 1) * 16, single=False)
        self.stock = stock.Stock(self.ids, NoTree("test"), 2, self.selector)
        self.got: list[Blank | BirthFailed] = []

    def begin(self, ids: IdBlock, cgroup: Cgroup, likely: Prepared, prepared: Mapping[str, Prepared]) -> Blank:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            while True:
                signal.pause()
        with theirs:
            theirs.send(self.word)
        blank = FakeBlank(pid, os.pidfd_open(pid), ours, ids, cgroup, likely)
        self.born.append(blank)
        return blank

    def serve(self) -> None:
        while ready := self.selector.select(0):
            for key, _ in ready:
                if self.selector.get_map().get(key.fd) is key:
                    key.data()

    def fill(self) -> None:
        while self.stock.wants_refill:
            self.stock.refill()
            self.serve()

    def end(self) -> None:
        self.stock.close()
        for taken in self.got:
            if isinstance(taken, Blank):
                self.stock.discard(taken)


@pytest.fixture
def births(monkeypatch: pytest.MonkeyPatch) -> Iterator[Births]:
    made = Births(monkeypatch, 8)
    yield made
    made.end()


def test_stock_fills_to_its_target_with_the_first_shape_and_one_of_the_next(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.fill()
    assert [blank.shape for blank in births.born] == [A.shape, A.shape, B.shape]


def test_idle_blank_is_handed_out_at_once_and_never_twice(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.fill()
    births.stock.take(A, births.got.append)
    births.stock.take(A, births.got.append)
    assert births.got == births.born
    births.stock.take(A, births.got.append)
    assert len(births.got) == 2
    births.serve()
    assert len({blank.pid for blank in births.got if isinstance(blank, Blank)}) == 3


def test_refill_waits_longer_while_a_sandbox_lives_unless_the_stock_runs_low(births: Births) -> None:
    births.stock.replace(_prepared(A))
    low = births.stock.patience_seconds(busy=True)
    births.fill()
    assert low < births.stock.patience_seconds(busy=False) < births.stock.patience_seconds(busy=True)


def test_blanks_are_made_for_the_template_that_was_asked_for_last(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.take(LARGER_A, births.got.append)
    births.fill()
    assert [blank.likely.template.name for blank in births.born] == ["larger"] * 3


def test_blank_that_died_idle_is_not_handed_out(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.fill()
    dead = births.born[0]
    os.kill(dead.pid, signal.SIGKILL)
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    births.stock.take(A, births.got.append)
    assert births.got == [births.born[1]]


def test_blank_is_handed_out_though_there_is_no_descriptor_left_to_rehearse_with(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.take(A, births.got.append)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        births.serve()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert births.got == births.born


def test_failure_is_told_and_does_not_spin(births: Births) -> None:
    births.word = b"x"
    births.stock.replace(_prepared(A))
    births.stock.take(A, births.got.append)
    births.serve()
    assert [str(failure) for failure in births.got] == ["the step that failed"]
    assert not births.stock.wants_refill
    births.word = b"r"
    births.stock.take(A, births.got.append)
    births.serve()
    assert isinstance(births.got[1], Blank)
    assert births.stock.wants_refill


def test_who_waits_through_a_reload_gets_the_new_blank_or_is_told(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.stock.take(A, births.got.append)
    births.stock.take(B, births.got.append)
    births.stock.replace(_prepared(B))
    births.serve()
    assert isinstance(births.got[0], BirthFailed)
    assert births.got[1] is births.born[-1]


def test_exhausted_ids_are_told_and_given_back_ones_used(births: Births) -> None:
    births.stock.replace(_prepared(A))
    for _ in range(10):
        births.stock.take(A, births.got.append)
    births.serve()
    failures = [got for got in births.got if isinstance(got, BirthFailed)]
    assert len(failures) == 2
    assert "widen the id range" in str(failures[0])
    blank = next(got for got in births.got if isinstance(got, Blank))
    births.got.remove(blank)
    births.stock.discard(blank)
    births.stock.take(A, births.got.append)
    births.serve()
    assert isinstance(births.got[-1], Blank)


def test_idle_blank_of_another_shape_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    births = Births(monkeypatch, 1)
    births.stock.replace(_prepared(A, B))
    births.fill()
    births.stock.take(B, births.got.append)
    births.serve()
    assert isinstance(births.got[0], Blank)
    births.end()
