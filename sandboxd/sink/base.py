"""What a sink is and what it is given. A sink forwards; it never filters silently and never decides anything.

It may be slow, down or stuck: `audit.cursor` gives each its own task, cursor and retries, so it delays only itself.
Sinks are found by name through `plugin`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FieldValue = str | int | float | bool | None | tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the journal. Values of `fields` are tenant text as well as ours: data, nothing else."""

    seq: int
    boot: str
    node: str
    time: str  # UTC, ISO 8601, nine fractional digits
    rule: str
    priority: str
    ids: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, FieldValue], ...]


class SinkUnavailable(Exception):
    """The sink did not take the records; they are sent again later."""


class Sink(Protocol):
    """`send` may get a record again after a crash (at least once): receivers tell by its boot and sequence number."""

    name: str

    async def send(self, records: Sequence[Record]) -> None:
        """Returns once the sink has taken all of them; OSError or SinkUnavailable if not."""

    async def close(self) -> None:
        """Give up what is under way and release everything."""
