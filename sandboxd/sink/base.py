"""What a sink is and what it is given. A sink forwards; it never filters silently and never decides anything.

It may be slow, down or stuck: `audit.cursor` gives each its own task, cursor and retries, so it delays only itself.
Sinks are found by their type through `plugin`; each module has `create(settings: …, node: str) -> Sink`, which takes
the settings of that type and the node's name, and raises ConfigInvalid for what it can tell at once.
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
    prev: str = ""  # SHA-256 of the line before, in hex
    digest: str = ""  # of its own line


class SinkUnavailable(Exception):
    """The sink did not take the records; they are sent again later."""


class Sink(Protocol):
    """`send` may get a record again after a crash (at least once): receivers tell by its boot and sequence number."""

    async def send(self, records: Sequence[Record]) -> None:
        """Returns once the sink has taken all of them; OSError or SinkUnavailable if not."""

    async def close(self) -> None:
        """Give up what is under way and release everything."""
