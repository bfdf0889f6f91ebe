from sandboxd.audit.condition import EVENT_SECONDS, FAILED_ATTEMPTS, MESSAGE_CHARS, Condition
from sandboxd.event import SinkFailed, SinkRecovered
from sandboxd.settings.sinks.base import SinkSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def condition() -> tuple[Condition, Clock]:
    clock = Clock()
    return Condition(SinkSettings(type="fake", name="siem", required=True), clock), clock


def failing(made: Condition, attempts: int = FAILED_ATTEMPTS) -> list[SinkFailed]:
    return [event for event in (made.refused("no") for _ in range(attempts)) if event is not None]


def test_a_short_failure_makes_no_event_but_is_counted() -> None:
    made, _ = condition()
    assert failing(made, FAILED_ATTEMPTS - 1) == []
    assert made.state == "failing"
    assert made.accepted() is None
    assert (made.state, made.retries, made.failures) == ("ok", FAILED_ATTEMPTS - 1, 0)


def test_a_long_failure_makes_one_event_at_each_end() -> None:
    made, clock = condition()
    made.refused("no")
    clock.now += 100
    (failed,) = failing(made, 50)
    assert (failed.sink, failed.type, failed.required, failed.message) == ("siem", "fake", True, "no")
    recovered = made.accepted()
    assert isinstance(recovered, SinkRecovered)
    assert recovered.seconds == 100
    assert made.accepted() is None


def test_one_that_comes_and_goes_is_told_once_a_minute_with_what_was_not_told() -> None:
    made, clock = condition()
    assert len(failing(made)) == 1
    assert made.accepted() is not None
    for _ in range(3):
        clock.now += 1
        assert failing(made) == []
        assert made.accepted() is None
    clock.now += EVENT_SECONDS
    (failed,) = failing(made)
    assert failed.suppressed == 3


def test_a_failure_held_back_is_told_once_the_minute_is_over() -> None:
    made, clock = condition()
    failing(made)
    made.accepted()
    assert failing(made) == []
    clock.now += EVENT_SECONDS
    (failed,) = failing(made, 5)
    assert failed.suppressed == 0
    assert made.accepted() is not None


def test_being_stuck_is_told_once() -> None:
    made, clock = condition()
    events = []
    for seconds in (30.0, 60.0, 90.0):
        clock.now += 30
        events.append(made.stuck(seconds))
    assert [event is not None for event in events] == [True, False, False]
    assert (made.state, made.last_error, made.last_error_at) == ("stuck", "it has not answered for 90 s", 1090)
    recovered = made.accepted()
    assert recovered is not None
    assert recovered.seconds == 90


def test_what_is_kept_of_an_error_is_bounded() -> None:
    made, _ = condition()
    made.refused("x" * 10_000)
    assert len(made.last_error) == MESSAGE_CHARS


def test_after_a_record_was_passed_over_attempts_are_counted_anew() -> None:
    made, _ = condition()
    failing(made)
    made.passed_over()
    assert (made.failures, made.state) == (0, "failing")
    assert made.accepted() is not None
