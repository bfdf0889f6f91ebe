"""The part of the configuration that adds patterns; docs/redaction.md says what each key means. Used by `config`."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from sandboxd.redaction.patterns import NAME, SHIPPED, Catalogue, PatternInvalid, Source, compiled
from sandboxd.settings.section import Section

MAX_PATTERNS = 64


class PatternSettings(Section):
    """What to take out where a policy demands it by name."""

    pattern: str
    max_bytes: int
    until: str = ""

    @model_validator(mode="after")
    def _compiles(self) -> "PatternSettings":
        try:
            compiled("", self.source)
        except PatternInvalid as error:
            raise ValueError(f"{error.key} {error}") from error
        return self

    @property
    def source(self) -> Source:
        return Source(self.pattern, self.max_bytes, self.until)


def _own_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError("is no name for a pattern; use small letters, digits and -, a letter first, 64 at most")
    if name in SHIPPED:
        raise ValueError("is the name of a pattern that is shipped; choose another")
    return name


class RedactionSettings(Section):
    """Patterns beside the shipped ones. Those in `requests` are taken out of the record of each request, whatever
    policy says: it is written before policy is asked. By default all that are shipped."""

    patterns: Annotated[
        dict[Annotated[str, AfterValidator(_own_name)], PatternSettings], Field(max_length=MAX_PATTERNS)
    ] = Field(default_factory=dict)
    requests: tuple[str, ...] = tuple(SHIPPED)

    @model_validator(mode="after")
    def _known(self) -> "RedactionSettings":
        if unknown := [name for name in self.requests if name not in self.catalogue]:
            raise ValueError(f"requests names {unknown!r}, which no pattern has; known are {', '.join(self.catalogue)}")
        return self

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue({name: pattern.source for name, pattern in self.patterns.items()})
