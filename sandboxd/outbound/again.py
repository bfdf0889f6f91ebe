"""When a server wants to be asked again, as it says in `Retry-After`. Used by whoever is sent away with 429 or 503."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MOST_SECONDS = 300.0  # a server that says more, or lies, holds nobody up for longer


def seconds_until(retry_after: str, now: datetime | None = None) -> float:
    """Seconds or a date (RFC 9110); 0 where it says neither, or a time that has passed."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), MOST_SECONDS)
    try:
        when = parsedate_to_datetime(text)
        left = (when if when.tzinfo else when.replace(tzinfo=UTC)) - (now or datetime.now(UTC))
    except (ValueError, OverflowError):
        return 0.0
    return min(max(left.total_seconds(), 0.0), MOST_SECONDS)
