from datetime import UTC, datetime, timedelta, timezone

import pytest

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.moment import ago_seconds, moment

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", NOW - timedelta(seconds=30)),
        ("90m", NOW - timedelta(minutes=90)),
        ("12h", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("999999d", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31 12:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00.000001+01:00", datetime(2026, 1, 31, 12, 0, 0, 1, timezone(timedelta(hours=1)))),
        ("0001-01-01T00:00:00+23:00", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_so_long_ago_or_a_date(text: str, expected: datetime) -> None:
    assert moment("--since", text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "-7d", "7w", "1.5h", "٣d", "yesterday", "2026-13-01", "2026-01-01T25:00"]
)
def test_what_is_no_time_is_said_with_what_is(text: str) -> None:
    with pytest.raises(Mistake, match=r"--until .* is no time; write for example 90m"):
        moment("--until", text, NOW)
    assert ago_seconds(text) is None
