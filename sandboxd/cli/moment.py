"""A moment as the command line takes it: so long ago, or a date and time. Pure."""

import re
from datetime import UTC, datetime, timedelta

from sandboxd.cli.mistake import Mistake

_AGO = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


def ago_seconds(text: str) -> int | None:
    """Of `90m`, `12h`, `7d`; None for anything else."""
    ago = _AGO.fullmatch(text)
    return None if ago is None else int(ago[1]) * _UNITS[ago[2]]


def moment(option: str, text: str, now: datetime) -> datetime:
    """`90m`, `12h`, `7d` before `now`, or ISO 8601; without a zone that is UTC. `Mistake`."""
    if (ago := ago_seconds(text)) is not None:
        return now - timedelta(seconds=min(ago, now.timestamp()))
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise Mistake(
            f"{option} {text!r} is no time; write for example 90m, 12h, 7d or 2026-01-31T12:00:00Z"
        ) from error
    return max(_FIRST, told if told.tzinfo is not None else told.replace(tzinfo=UTC))
