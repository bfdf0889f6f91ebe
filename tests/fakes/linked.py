"""Events as records at some place of a chain, and one of each kind with no field empty."""

from dataclasses import fields
from types import UnionType
from typing import get_args, get_origin, get_type_hints

from sandboxd.audit.line import ORIGIN, Link, body, decode, encode
from sandboxd.event import Event
from sandboxd.sink.base import Record

_NASTY: dict[object, object] = {str: 'é\0\ud800"\n\x1b[2J\u202e\U0001f600', int: -7, float: 0.1, bool: True}


def linked(
    event: Event, *, seq: int = 1, node: str = "node", time_ns: int = 1_000_000_000_000_000_001, prev: str = ""
) -> Record:
    """As read back from its line of the journal, behind the one with the digest `prev`."""
    link = Link(seq - 1, prev or ORIGIN.digest)
    return decode(encode(body(event), link, "boot", node, time_ns)[:-1])


def nasty(kind: type[Event]) -> Event:
    """With all that text can do in each of its texts."""
    hints = get_type_hints(kind)
    return kind(**{field.name: _nasty(hints[field.name], field.name) for field in fields(kind)})  # type: ignore[arg-type]


def _nasty(hint: object, name: str) -> object:
    if name == "trace_id":
        return "a1" * 16
    if get_origin(hint) is tuple:
        items = get_args(hint)
        return tuple(_nasty(item, name) for item in items if item is not ...) * (2 if items[-1] is ... else 1)
    if get_origin(hint) is UnionType:
        hint = get_args(hint)[0]
    return _NASTY[hint]
