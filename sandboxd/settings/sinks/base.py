"""What every sink's section has; each sink adds its own in a file of its own. Used by `any`, and by `audit.feed`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from sandboxd.event import Priority
from sandboxd.settings.section import Section

Rule = Annotated[str, Field(pattern=r"^([a-z_]+\.[a-z_]+|[a-z_]+\.\*)$")]


class Filter(Section):
    """What of the journal a sink is sent, all conditions together; without any, everything.

    `rules`: names as `policy.decided`, or all of a noun as `policy.*`. `priority`: this one and the more urgent.
    """

    rules: tuple[Rule, ...] = ()
    priority: Priority = "Debug"
    tenants: tuple[Annotated[str, Field(max_length=256)], ...] = ()


class SinkSettings(Section):
    """Where events go besides the journal. A required sink must accept at start, and holds back retention.

    Its place in the journal, and its numbers, go by its `name`: by default its type.
    """

    type: str
    name: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]{0,63})?$")] = ""
    required: bool = False
    filter: Filter = Filter()

    @property
    def directories(self) -> tuple[str, ...]:
        """That it writes to."""
        return ()

    @property
    def hidden(self) -> tuple[str, ...]:
        """Directories that no profile may show to a sandbox."""
        return self.directories

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_type(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("name", "") == "":
            return {**values, "name": values.get("type", "")}
        return values

    def placed(self, directory: Path) -> Self:
        """With what it leaves open about places filled in: in `directory` the daemon's own sockets are."""
        return self
