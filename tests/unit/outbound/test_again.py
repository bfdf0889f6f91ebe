from datetime import UTC, datetime

import pytest

from sandboxd.outbound.again import MOST_SECONDS, seconds_until

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2099 11:00:00 GMT", MOST_SECONDS),
        ("9" * 5000, MOST_SECONDS),
        ("", 0.0),
        ("-5", 0.0),
        ("1e9", 0.0),
        ("٧", 0.0),
        ("soon", 0.0),
        ("Thu, 01 Jan 99999999999999 11:00:00 GMT", 0.0),
    ],
)
def test_what_a_server_says_is_read_within_bounds(said: str, seconds: float) -> None:
    assert seconds_until(said, NOW) == seconds
