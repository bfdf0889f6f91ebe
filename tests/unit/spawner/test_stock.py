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
from sandboxd.spawner.wire import Message, Offered, Withdrawn
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
        self.told: list[Message] = []
        self.stock = stock.Stock(
            self.ids, NoTree("test"), 2, self.selector, lambda message, fds: self.told.append(message)
        )
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

    def offers(self) -> list[int]:
        """That the daemon was told of and that were not withdrawn, oldest first."""
        withdrawn = {message.offer for message in self.told if isinstance(message, Withdrawn)}
        return [m.offer for m in self.told if isinstance(m, Offered) and m.offer not in withdrawn]

    def claim(self, offer: int, prepared: Prepared) -> Blank | None:
        claimed = self.stock.claim(offer, prepared)
        if claimed is None:
            return None
        blank, line = claimed
        line.close()
        self.got.append(blank)
        return blank

    def end(self) -> None:
        self.stock.close()
        for taken in self.got:
            if isinstance(taken, Blank):
                self.stock.discard(taken)


@pytest.fixture
def blocks() -> int:
    """How many sandboxes there are ids for."""
    return 8


@pytest.fixture
def births(monkeypatch: pytest.MonkeyPatch, blocks: int) -> Iterator[Births]:
    made = Births(monkeypatch, blocks)
    yield made
    made.end()


def test_stock_fills_to_its_target_with_the_first_shape_and_one_of_the_next(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.fill()
    assert [blank.shape for blank in births.born] == [A.shape, A.shape, B.shape]


def test_every_blank_in_stock_is_offered_and_is_his_who_names_it_once(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.open()
    births.fill()
    first, second = births.offers()
    assert births.claim(second, A) is births.born[1]
    assert births.claim(second, A) is None
    assert births.claim(first, A) is births.born[0]
    assert births.claim(99, A) is None


def test_offer_tells_which_templates_it_may_become_and_what_it_holds(births: Births) -> None:
    births.stock.replace({"a": A, "larger": LARGER_A, "b": B})
    births.stock.open()
    births.stock.take(A, births.got.append)
    births.fill()
    offered = [message for message in births.told if isinstance(message, Offered)]
    assert {message.templates for message in offered} == {("a", "larger"), ("b",)}
    assert {message.fd_names for message in offered} == {("pidfd", "init")}
    assert {message.pids for message in offered} == {A.template.ceilings.pids}
    assert {message.memory_bytes for message in offered} == {0}, "a cgroup that took no limits holds none"


def test_offer_for_a_template_of_another_shape_is_none_and_stays(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.stock.open()
    births.fill()
    first = births.offers()[0]
    assert births.claim(first, B) is None
    assert births.claim(first, A) is births.born[0]


def test_who_names_no_offer_gets_one_that_is_born_for_him(births: Births) -> None:
    """Those on offer are the daemon's: it may name one at this very moment."""
    births.stock.replace(_prepared(A))
    births.stock.open()
    births.fill()
    births.stock.take(A, births.got.append)
    births.stock.take(A, births.got.append)
    births.serve()
    assert births.got == births.born[2:]
    assert len(births.offers()) == 2


def test_blanks_that_the_last_daemon_left_are_offered_anew_to_the_next(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.fill()
    assert births.told == []
    births.stock.open()
    assert births.offers() == [1, 2]
    births.stock.shut()
    births.told.clear()
    births.stock.open()
    assert births.offers() == [3, 4]
    assert births.claim(1, A) is None
    assert births.claim(3, A) is births.born[0]


def test_offered_blank_is_not_ended_before_the_daemon_has_let_go_of_it(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.open()
    births.fill()
    births.stock.replace(_prepared(B))
    assert births.told[-2:] == [Withdrawn(1), Withdrawn(2)]
    births.stock.returned(1)
    assert [_dead(blank) for blank in births.born] == [True, False]
    assert births.claim(2, A) is births.born[1], "named before it was withdrawn: the message was on its way"
    births.stock.returned(2)
    births.stock.returned(77)
    assert not _dead(births.born[1])


def test_withdrawn_blanks_of_a_daemon_that_is_gone_are_ended(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.open()
    births.fill()
    births.stock.replace(_prepared(B))
    births.stock.shut()
    assert [_dead(blank) for blank in births.born] == [True, True]


def test_offer_that_could_not_be_told_is_ended_and_no_other_is_made_until_somebody_asks(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.open()
    births.fill()
    births.stock.undelivered(1)
    assert _dead(births.born[0])
    assert not births.stock.wants_refill
    births.stock.take(A, births.got.append)
    births.serve()
    assert births.stock.wants_refill


def test_blank_that_cannot_be_offered_for_want_of_descriptors_is_ended(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.fill()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        births.stock.open()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert births.told == []
    assert [_dead(blank) for blank in births.born] == [True, True]
    assert not births.stock.wants_refill


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


def test_blank_that_dies_on_offer_is_withdrawn_and_replaced(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.stock.open()
    births.fill()
    dead = births.born[0]
    _kill(dead)
    births.serve()
    assert births.told[-1] == Withdrawn(1)
    births.fill()
    assert births.offers() == [2, 3]
    births.stock.returned(1)


def test_blank_that_died_before_there_was_a_daemon_is_not_offered(births: Births) -> None:
    births.stock.replace(_prepared(A))
    births.fill()
    _kill(births.born[0])
    births.stock.open()
    assert births.claim(births.offers()[0], A) is births.born[1]


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


@pytest.mark.parametrize("blocks", [1])
def test_idle_blank_of_another_shape_makes_room(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.fill()
    births.stock.take(B, births.got.append)
    births.serve()
    assert isinstance(births.got[0], Blank)


@pytest.mark.parametrize("blocks", [1])
def test_offered_blank_of_another_shape_makes_room_once_it_is_returned(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.stock.open()
    births.fill()
    births.stock.take(B, births.got.append)
    births.serve()
    assert (births.told[-1], births.got) == (Withdrawn(1), [])
    births.stock.returned(1)
    births.serve()
    assert births.got == [births.born[1]]


@pytest.mark.parametrize("blocks", [1])
def test_who_waits_for_room_that_is_used_after_all_is_told(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.stock.open()
    births.fill()
    refused: list[Blank | BirthFailed] = []
    births.stock.take(B, refused.append)
    assert refused == []
    assert births.claim(1, A) is births.born[0]
    assert [type(failure) for failure in refused] == [BirthFailed]


@pytest.mark.parametrize("blocks", [2])
def test_room_is_made_for_each_who_waits_and_no_more(births: Births) -> None:
    births.stock.replace(_prepared(A, B))
    births.stock.open()
    births.fill()
    for _ in range(3):
        births.stock.take(B, births.got.append)
    assert [message for message in births.told if isinstance(message, Withdrawn)] == [Withdrawn(1), Withdrawn(2)]
    births.stock.returned(2)
    births.stock.returned(1)
    births.serve()
    assert [type(got) for got in births.got] == [BirthFailed, FakeBlank, FakeBlank]


def _kill(blank: Blank) -> None:
    os.kill(blank.pid, signal.SIGKILL)
    os.waitid(os.P_PID, blank.pid, os.WEXITED | os.WNOWAIT)


def _dead(blank: Blank) -> bool:
    """And buried."""
    try:
        os.kill(blank.pid, 0)
    except ProcessLookupError:
        return True
    return False
