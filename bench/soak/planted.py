"""A bug on purpose behind a parser's last check: `Planted` for a text that begins with three certain letters.

Finding it takes inputs that stay well formed while they change, and feedback from coverage: so a harness that mutates
blindly, lost its guidance, or swallows exceptions, is found out. Used with `--planted` and by the harness's own test.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import PurePath

from pydantic import BaseModel

from bench.soak.target import Target


class Planted(Exception):
    """The bug was reached."""


def planted(target: Target) -> Target:
    """The same target with the bug in each text of what it gives back."""

    def run(data: bytes) -> object:
        found = target.run(data)
        for text in texts(found):
            _bug(text)
        return found

    return replace(target, run=run, modules=(*target.modules, __name__))


def texts(value: object) -> Iterator[str]:
    """All that a target gave back, whatever it is in."""
    match value:
        case str() | PurePath():
            yield str(value).lstrip("/")  # paths may often only be absolute
        case Mapping():
            for pair in value.items():
                yield from texts(pair)
        case tuple() | list():
            for item in value:
                yield from texts(item)
        case BaseModel():
            yield from texts(tuple(value.__dict__.values()))
        case _ if is_dataclass(value):
            for field in fields(value):
                yield from texts(getattr(value, field.name))


# A line for each letter that fits, which is what coverage can tell apart, and comparisons that libFuzzer sees.
def _bug(text: str) -> None:
    fitting = 0
    if text[:1] == "b":
        fitting = 1
    if text[:2] == "bu":
        fitting = 2
    if text[:3] == "bug":
        fitting = 3
    if fitting == 3:
        raise Planted
