"""What every sink's section has; each sink adds its own in a file of its own. Used by `any`, and by `audit.feed`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from sandboxd.event import Event, Priority
from sandboxd.settings.section import Section

_RULES = frozenset(kind.rule for kind in Event.__subclasses__())
_KNOWN = _RULES | {f"{rule.partition('.')[0]}.*" for rule in _RULES}


def _known(rule: str) -> str:
    """A sink that waits for an event which never comes would look well."""
    if rule not in _KNOWN:
        raise ValueError("is no event's rule; docs/events.md lists them, and NOUN.* is all of a noun")
    return rule


Rule = Annotated[str, AfterValidator(_known)]


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
