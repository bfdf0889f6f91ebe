from sandboxd.approval.clock import ForwardClock, steady


class Hands:
    """Two clocks that a test sets."""

    wall, steady = 1000.0, 5.0

    def clock(self, not_before: float = 0.0) -> ForwardClock:
        return ForwardClock(lambda: self.wall, lambda: self.steady, not_before)


def test_it_is_the_wall_while_that_goes_on() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall, hands.steady = 1010.0, 15.0
    assert clock.time() == 1010.0
    hands.wall, hands.steady = 2000.0, 16.0
    assert clock.time() == 2000.0


def test_time_passes_by_the_steady_clock_while_the_wall_is_set_back() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall, hands.steady = 0.0, 35.0
    assert clock.time() == 1030.0
    hands.wall, hands.steady = 5.0, 40.0
    assert clock.time() == 1035.0


def test_it_begins_no_earlier_than_what_was_seen_before() -> None:
    hands = Hands()
    assert hands.clock(not_before=1500.0).time() == 1500.0
    assert hands.clock(not_before=500.0).time() == 1000.0


def test_the_steady_clock_of_the_machine_does_not_go_back() -> None:
    assert steady() <= steady()
