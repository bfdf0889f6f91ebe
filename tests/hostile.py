"""Events with whatever a tenant, or a defect of ours, could put into them. For fuzzing; the same for the same seed."""

import random
from collections.abc import Callable
from dataclasses import fields
from typing import ClassVar, get_args, get_origin, get_type_hints

from sandboxd import event
from sandboxd.event import Event

KINDS: tuple[type[Event], ...] = tuple(
    kind for kind in vars(event).values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
)
_IDS = frozenset(field.name for field in fields(Event))
TEXTS = (
    "",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "x\udc80y",
    "\u202eevil\u202c",
    "\u2066\u200f\ufeff",
    '"}],"rule":"fake","x":[{"',
    "\\",
    '\\"',
    "\n{}\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
    "%s%n%x%99999999d",
    "{0.__class__}{}",
    "${jndi:ldap://x/y}",
    '{{ index . "proc.name" }}',
    "<script>&amp;</script>",
    "'; DROP TABLE events; --",
    "\x1b[2J\x1b]0;x\x07",
    "\u2028\u2029\x85\x7f",
    "e\u0301" * 300,
    "\U0010ffff" * 400,
    "\u00e9" * 512,
    "x" * 513,
    "NaN",
    "null",
    "../../../etc/passwd",
)
NUMBERS = (0, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**400, -(10**5000))
FLOATS = (0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 0.1)


def hostile(chance: random.Random, kind: type[Event]) -> Event:
    hints = {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}
    values = {name: _text(chance) if name in _IDS else _value(chance, hint) for name, hint in hints.items()}
    return kind(**values)  # type: ignore[arg-type]


def _value(chance: random.Random, hint: object) -> object:
    if chance.random() < 0.01:
        return chance.choice(_ANYTHING)(chance)
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if items[-1] is not Ellipsis:
            return tuple(_value(chance, item) for item in items)
        count = chance.choice((0, 1, 3, 300)) if chance.random() < 0.1 else chance.randint(0, 3)
        return tuple(_value(chance, items[0]) for _ in range(count))
    if options := get_args(hint):
        return _value(chance, chance.choice(options))
    return _OF_TYPE[hint](chance)


def _text(chance: random.Random) -> str:
    if chance.random() < 0.001:
        text = chance.choice(TEXTS[1:])
        return text * ((1 << 20) // len(text) + 1)
    if chance.random() < 0.5:
        return chance.choice(TEXTS)
    return "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randint(0, 40)))


def _deep(chance: random.Random) -> tuple[object, ...]:
    made: tuple[object, ...] = ("bottom",)
    for _ in range(chance.choice((2, 15, 17, 100, 5000))):
        made = (made,)
    return made


def _number(chance: random.Random) -> int:
    return chance.choice(NUMBERS)


def _float(chance: random.Random) -> float:
    return chance.choice(FLOATS)


def _flag(chance: random.Random) -> bool:
    return chance.random() < 0.5


_OF_TYPE: dict[object, Callable[[random.Random], object]] = {
    str: _text,
    int: _number,
    float: _float,
    bool: _flag,
    type(None): lambda _: None,
}
_ANYTHING = (_text, _number, _float, _flag, _deep)
