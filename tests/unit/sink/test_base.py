from sandboxd.sink.base import Reopens, SinkRefused, SinkUnavailable
from sandboxd.sink.stdout import StdoutSink


def test_errors_of_a_sink_say_what_and_when_and_which() -> None:
    assert (str(SinkUnavailable("full", 3.0)), SinkUnavailable("full", 3.0).after_seconds) == ("full", 3.0)
    assert SinkUnavailable("full").after_seconds == 0
    assert (str(SinkRefused("400", 7)), SinkRefused("400", 7).seq) == ("400", 7)
    assert SinkRefused("400").seq is None


def test_a_sink_without_a_file_has_nothing_to_reopen() -> None:
    assert not issubclass(StdoutSink, Reopens)
