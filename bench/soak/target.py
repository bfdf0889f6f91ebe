"""What a fuzzer needs to know of one parser, and what it holds against it.

Imports nothing of sandboxd: the guided driver has to be there first, to instrument what the target's module imports.
Used by both drivers, by `covered`, and by each file of `targets`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

NAMES = (
    "request",
    "calls",
    "wire",
    "launch",
    "profile",
    "config",
    "decision",
    "engine",
    "policy",
    "analysis",
    "init",
    "journal",
    "cursor",
    "store",
    "template",
    "probed",
    "counters",
    "procfs",
    "filters",
    "paths",
    "workspace",
    "options",
    "answers",
    "details",
    "redaction",
    "falco",
)


class Broken(Exception):
    """No exception of the parser's own, but an answer that breaks a promise of it."""


class Shape(Enum):
    """What an input looks like from outside."""

    BYTES = "bytes"
    TEXT = "text"
    PROTOBUF = "protobuf"


@dataclass(frozen=True, slots=True)
class Target:
    """`run` feeds bytes to the parser. It may raise what is in `allowed`; anything else is a crash.

    It gives back what came out behind the parser's last check, or nothing: `planted` puts its bug there. `modules` are
    those whose coverage counts, but for the functions named in `outside` (as `module.Class.method`), which no input can
    reach; `seeds` are inputs to begin with, `words` are worth inserting, and `shape` says how to change an input and
    keep its framing.
    """

    name: str
    modules: tuple[str, ...]
    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    shape: Shape = Shape.TEXT
    max_bytes: int = 4096
    outside: tuple[str, ...] = ()


def load(name: str) -> Target:
    """The target of that name, from its file in `targets`."""
    if name not in NAMES:
        raise KeyError(f"target {name!r} is unknown; known are {', '.join(NAMES)}")
    module = importlib.import_module(f"bench.soak.targets.{name}")
    target = module.target()
    assert isinstance(target, Target)
    return target


class Draw:
    """Numbers and choices out of fuzzed bytes, for targets whose input is a structure. Zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece.ljust(count, b"\0")

    def number(self, size: int) -> int:
        return int.from_bytes(self.bytes(size), "little")

    def below(self, bound: int) -> int:
        return self.number(2) % bound
