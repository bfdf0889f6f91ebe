"""What a sink is and what it is given. A sink forwards; it never filters silently and never decides anything.

It may be slow, down or stuck: `audit.feed` gives each its own task, cursor and retries, so it delays only itself.
Sinks are found by their type through `plugin`; each module has `create(settings: …, node: str) -> Sink`, which takes
the settings of that type and the node's name, and raises ConfigInvalid for what it can tell at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
    """The sink did not take the records; they are sent again, not before `after_seconds` if the receiver named some."""

    def __init__(self, message: str, after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class SinkRefused(Exception):
    """The receiver says that it will never take one of these records, as it is (HTTP 400 for a single event).

    `seq` says which; without it the feed finds out by sending fewer. Some of the others may have been taken already.
    """

    def __init__(self, message: str, seq: int | None = None) -> None:
        super().__init__(message)
        self.seq = seq


class Sink(Protocol):
    """`send` may get a record again after a crash (at least once): receivers tell by its boot and sequence number."""

    async def send(self, records: Sequence[Record]) -> None:
        """Returns once the sink has taken all of them; OSError, SinkUnavailable or SinkRefused if not.

        Nothing at all is sent to a required sink when the daemon starts: it returns if the receiver is there.
        """

    async def close(self) -> None:
        """Give up what is under way and release everything."""


@runtime_checkable
class Reopens(Protocol):
    """A sink that keeps a file open which somebody else may move away."""

    def reopen(self) -> None:
        """From the next record on, write to what is at its path then. Called on reload; never blocks."""


@runtime_checkable
class Loses(Protocol):
    """A sink that can take a record which nobody gets: what others fetch from it waits for them, and not for ever; a
    receiver may say that it keeps a batch but for some, and not which.
    """

    @property
    def dropped(self) -> int:
        """Records that it took and nobody got."""
