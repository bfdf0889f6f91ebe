"""Every kind of event with whatever anyone could write into it, and as the record that a sink is given of it."""

from dataclasses import fields
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from sandboxd import event
from sandboxd.audit.line import ORIGIN, Link, body, decode, encode
from sandboxd.event import Event
from sandboxd.sink.base import Record

KINDS = tuple(
    kind for kind in vars(event).values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
)

_CHOSEN = (
    "",
    "\0",
    "\ud800",
    '"}\n{"rule":"fake"}',
    "\x1b[2J\r\u2028\u202e",
    "\U0001f600" * 400,
    "\udcff" * 600,
    "x" * 5000,
)
_VALUES: dict[object, st.SearchStrategy[object]] = {
    str: st.one_of(st.sampled_from(_CHOSEN), st.text(st.characters(exclude_categories=()))),
    int: st.integers(),
    float: st.floats(),
    bool: st.booleans(),
    NoneType: st.none(),
}
_NASTY: dict[object, object] = {
    str: 'é\0\ud800"\n\x1b[2J\u202e\U0001f600',
    int: -7,
    float: 0.1,
    bool: True,
}


def hostile(kind: type[Event]) -> st.SearchStrategy[Event]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: _values(hints[field.name]) for field in fields(kind)})


def nasty(kind: type[Event]) -> Event:
    """One with no field empty, and all that text can do in each of its texts."""
    hints = get_type_hints(kind)
    return kind(**{field.name: _nasty(hints[field.name], field.name) for field in fields(kind)})  # type: ignore[arg-type]


def recorded(
    made: Event, *, seq: int = 1, node: str = "node", time_ns: int = 1_000_000_000_000_000_001, prev: str = ""
) -> Record:
    """As read back from its line of the journal."""
    link = Link(seq - 1, prev or ORIGIN.digest)
    return decode(encode(body(made), link, "boot", node, time_ns)[:-1])


def _values(hint: object) -> st.SearchStrategy[object]:
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if items[-1] is ...:
            return st.lists(_values(items[0]), max_size=4).map(tuple)
        return st.tuples(*map(_values, items))
    if get_origin(hint) is UnionType:
        return st.one_of(*map(_values, get_args(hint)))
    return _VALUES[hint]


def _nasty(hint: object, name: str) -> object:
    if name == "trace_id":
        return "a1" * 16
    if get_origin(hint) is tuple:
        items = get_args(hint)
        return tuple(_nasty(item, name) for item in items if item is not ...) * (2 if items[-1] is ... else 1)
    if get_origin(hint) is UnionType:
        hint = get_args(hint)[0]
    return _NASTY[hint]
