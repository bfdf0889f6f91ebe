"""When a daemon is started again: at once, later, or not at all. Time is the test's own."""

import pytest

from sandboxd.spawner.restarts import EX_CONFIG, MOST_SECONDS, Restarts
from tests.fakes.clock import FakeClock


class Daemons:
    """One daemon after the other, each with its life and its end."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._restarts = Restarts(self._clock.time)

    def pause(self, served_seconds: float | None, status: int = 1) -> float | None:
        """What follows a daemon that served so long; None: that never got ready."""
        self._restarts.started()
        if served_seconds is not None:
            self._restarts.ready()
            self._clock.advance(served_seconds)
            self._restarts.ready()  # as after a reload
        return self._restarts.pause_seconds(status)


def test_first_crash_of_one_that_served_costs_no_time() -> None:
    assert Daemons().pause(1.0) == 0.0


def test_crashes_in_a_row_wait_twice_as_long_each_up_to_a_bound() -> None:
    daemons = Daemons()
    pauses = [daemons.pause(1.0) for _ in range(40)]
    assert pauses[:6] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert set(pauses[10:]) == {MOST_SECONDS}


def test_one_that_served_long_starts_the_count_anew() -> None:
    daemons = Daemons()
    for _ in range(10):
        daemons.pause(1.0)
    assert [daemons.pause(3600.0), daemons.pause(1.0)] == [0.0, 0.1]


def test_one_that_never_gets_ready_is_given_up_after_five() -> None:
    daemons = Daemons()
    assert [daemons.pause(None) for _ in range(5)] == [0.5, 0.5, 0.5, 0.5, None]


def test_one_that_got_ready_in_between_has_five_more_starts() -> None:
    daemons = Daemons()
    assert None not in [daemons.pause(None) for _ in range(4)]
    daemons.pause(1.0)
    assert [daemons.pause(None) for _ in range(5)].index(None) == 4


@pytest.mark.parametrize(("served_seconds", "given_up"), [(None, True), (1.0, False)])
def test_configuration_error_is_given_up_only_before_it_is_ready(served_seconds: float | None, given_up: bool) -> None:
    assert (Daemons().pause(served_seconds, EX_CONFIG) is None) is given_up
