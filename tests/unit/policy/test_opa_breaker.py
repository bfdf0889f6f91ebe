from sandboxd.policy.opa_breaker import Breaker, State, Ticket
from tests.fakes.clock import FakeClock


class Rig:
    def __init__(self, failures: int = 3) -> None:
        self.clock = FakeClock()
        self.states: list[State] = []
        self.breaker = Breaker(failures, 5.0, self.clock.time, self.states.append)

    def state(self) -> State:
        return self.breaker.state

    def ticket(self) -> Ticket:
        ticket = self.breaker.admit()
        assert ticket is not None
        return ticket

    def ends(self, *outcomes: bool | None) -> None:
        for heard in outcomes:
            self.breaker.settle(self.ticket(), heard=heard)

    def opened(self) -> "Rig":
        self.ends(False, False, False)
        assert self.breaker.state is State.OPEN
        return self


def test_it_opens_after_that_many_failures_in_a_row_and_not_before() -> None:
    rig = Rig()
    rig.ends(False, False, True, False, False)
    assert rig.state() is State.CLOSED
    rig.ends(False)
    assert (rig.state(), rig.states, rig.breaker.admit()) == (State.OPEN, [State.OPEN], None)


def test_after_the_pause_one_question_is_the_probe_and_all_others_wait() -> None:
    rig = Rig().opened()
    rig.clock.advance(4.99)
    assert rig.breaker.admit() is None
    rig.clock.advance(0.01)
    probe = rig.ticket()
    assert (rig.state(), rig.breaker.admit()) == (State.HALF_OPEN, None)
    rig.breaker.settle(probe, heard=True)
    assert rig.states == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    rig.ends(False, False)
    assert rig.state() is State.CLOSED


def test_a_probe_that_fails_opens_it_for_another_whole_pause() -> None:
    rig = Rig().opened()
    rig.clock.advance(5)
    rig.ends(False)
    assert (rig.state(), rig.breaker.admit()) == (State.OPEN, None)
    rig.clock.advance(4.99)
    assert rig.breaker.admit() is None
    assert rig.breaker.trips == 2
    rig.clock.advance(0.01)
    assert rig.breaker.admit() is not None


def test_a_probe_that_is_given_up_leaves_the_next_question_to_be_the_probe() -> None:
    rig = Rig().opened()
    rig.clock.advance(5)
    rig.ends(None)
    assert (rig.state(), rig.breaker.trips) == (State.OPEN, 1)
    rig.ends(True)
    assert rig.state() is State.CLOSED


def test_a_question_that_is_given_up_counts_as_nothing() -> None:
    rig = Rig()
    rig.ends(False, False, None)
    assert rig.state() is State.CLOSED
    rig.ends(False)
    assert rig.state() is State.OPEN


def test_questions_of_before_change_nothing_after() -> None:
    rig = Rig()
    before = [rig.ticket() for _ in range(4)]
    rig.opened()
    rig.breaker.settle(before[0], heard=True)
    assert rig.state() is State.OPEN
    rig.clock.advance(5)
    probe = rig.ticket()
    rig.breaker.settle(before[1], heard=True)
    rig.breaker.settle(before[2], heard=False)
    assert rig.state() is State.HALF_OPEN
    rig.breaker.settle(probe, heard=True)
    rig.breaker.settle(before[3], heard=False)
    rig.ends(False, False)
    assert rig.state() is State.CLOSED
