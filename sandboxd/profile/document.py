"""Bytes of a YAML file → plain values with the line each of them stood on. A subset of YAML 1.2 with no surprises.

Never resolves an alias, a tag or a merge key, never builds an object, never reads a second document: each is refused
with its line, as are duplicate keys and files that are too large or too deep. Called by `load`; driven by the fuzzers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from sandboxd.errors import ProfileInvalid

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_NODES = 20_000
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LONGEST_NUMBER = 40  # int() of a long digit string takes quadratic time

Scalar = str | int | float | bool | None
Value = Scalar | list["Value"] | dict[str, "Value"]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its value, and the line (from 1) of every key and item by its path."""

    name: str
    value: dict[str, Value]
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line of that path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(data: bytes, name: str) -> Document:
    """`ProfileInvalid` as `name:line: what is wrong` for anything outside the subset."""
    if len(data) > MAX_BYTES:
        raise ProfileInvalid(f"{name}:1: {len(data)} bytes are more than a profile may have ({MAX_BYTES})")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileInvalid(f"{name}:{line}: not UTF-8: byte {data[error.start]:#04x}") from error
    yaml = YAML(typ="safe", pure=True)
    try:
        return _Builder(name).document(iter(yaml.parse(text)))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ProfileInvalid(f"{name}:{line}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, ValueError, LookupError, AssertionError, AttributeError, TypeError, RuntimeError) as error:
        # the scanner leaks such errors for malformed directives and escapes; each means that this is not YAML
        raise ProfileInvalid(f"{name}:1: not YAML: {type(error).__name__}") from error


class _Builder:
    """Consumes the event stream of one file; keeps the line of each path as it goes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0
        self._lines: dict[Path, int] = {(): 1}

    def document(self, events: Iterator[Event]) -> Document:
        value: Value = None
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "a second document; give each profile its own file")
            elif isinstance(event, NodeEvent):
                value = self._node(event, events, ())
        if not isinstance(value, dict):
            raise ProfileInvalid(
                f"{self._name}:1: not a profile; expected a mapping with apiVersion, kind, metadata, spec"
            )
        return Document(self._name, value, self._lines)

    def _node(self, event: Event, events: Iterator[Event], path: Path) -> Value:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values")
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._error(event, "anchors and aliases are not allowed; write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            raise self._error(event, f"the tag {str(tag)!r} is not allowed")
        match event:
            case ScalarEvent():
                return self._scalar(event)
            case SequenceStartEvent():
                return self._sequence(events, path)
            case MappingStartEvent():
                return self._mapping(events, path)
        raise self._error(event, "expected a value")

    def _sequence(self, events: Iterator[Event], path: Path) -> list[Value]:
        items: list[Value] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            at = (*path, len(items))
            self._lines[at] = event.start_mark.line + 1
            items.append(self._node(event, events, at))
        return items

    def _mapping(self, events: Iterator[Event], path: Path) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            if not isinstance(event, ScalarEvent):
                raise self._error(event, "a key must be a plain word")
            key = self._node(event, events, path)
            if not isinstance(key, str):
                raise self._error(event, f"the key {event.value!r} is not a word; quote it")
            if key in mapping:
                raise self._error(event, f"duplicate key {key!r}, first on line {self._lines[(*path, key)]}")
            at = (*path, key)
            self._lines[at] = event.start_mark.line + 1
            mapping[key] = self._node(next(events), events, at)
        return mapping

    def _scalar(self, event: ScalarEvent) -> Scalar:
        text = str(event.value)
        if event.style is not None:  # quoted or block: always text
            return text
        if text in ("", "~", "null"):
            return None
        if text in ("true", "false"):
            return text == "true"
        if len(text) > _LONGEST_NUMBER:
            return text
        if _INTEGER.match(text):
            return int(text)
        if _HEX.match(text):
            return int(text, 16)
        if _FLOAT.match(text):
            return float(text)
        return text

    def _error(self, event: Event, problem: str) -> ProfileInvalid:
        return ProfileInvalid(f"{self._name}:{event.start_mark.line + 1}: {problem}")
