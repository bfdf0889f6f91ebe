"""How a message is written as a JSON object and read back: made once per class, since every message passes through.

Reading is strict: a missing or unknown field or a value of another type is a `Misfit`. Knows no message by name; `wire`
has one form for each of its own. Standard library only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

MessageT = TypeVar("MessageT")

_INT_END = 1 << 63  # nothing that is counted here has more bits, and no system call or response takes more
_MAX_FLOAT = 1e300  # beyond it JSON has infinities, and an int may be too large for a float

_Check = Callable[[object], object]


class Misfit(Exception):
    """A JSON value is not what a field, or an object is not what a message, has to be."""


@dataclass(frozen=True, slots=True)
class Form(Generic[MessageT]):
    """Of one class of messages, a dataclass of int, str, float and tuples of these."""

    name: str
    make: Callable[..., MessageT]
    checks: dict[str, _Check]  # by field, in order

    def write(self, message: MessageT) -> dict[str, object]:
        return {name: getattr(message, name) for name in self.checks}

    def read(self, body: dict[str, object]) -> MessageT:
        if body.keys() != self.checks.keys():
            raise Misfit(f"{self.name}: fields {sorted(body)} are not {sorted(self.checks)}")
        values = {}
        for key, check in self.checks.items():
            try:
                values[key] = check(body[key])
            except Misfit as error:
                raise Misfit(f"{self.name}.{key}: {error}") from None
        return self.make(**values)


def form_of(cls: type[MessageT]) -> Form[MessageT]:
    return Form(cls.__name__, cls, {name: _check_for(hint) for name, hint in get_type_hints(cls).items()})


def _check_int(value: object) -> int:
    if type(value) is not int:
        raise Misfit(f"expected int, got {type(value).__name__}")
    if not -_INT_END <= value < _INT_END:
        raise Misfit("out of range")
    return value


def _check_str(value: object) -> str:
    if type(value) is not str:
        raise Misfit(f"expected str, got {type(value).__name__}")
    return value


def _check_float(value: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise Misfit(f"expected float, got {type(value).__name__}")
    if not -_MAX_FLOAT <= value <= _MAX_FLOAT:
        raise Misfit("out of range")
    return float(value)


def _check_list(value: object) -> list[object]:
    if type(value) is not list:
        raise Misfit("expected a list")
    return value


_PLAIN: dict[type[object], _Check] = {int: _check_int, str: _check_str, float: _check_float}


def _check_for(hint: Any) -> _Check:
    """What turns a JSON value into one of type `hint`."""
    if get_origin(hint) is not tuple:
        return _PLAIN[hint]
    items = get_args(hint)
    if items[-1] is Ellipsis:
        check = _check_for(items[0])
        return lambda value: tuple(map(check, _check_list(value)))
    checks = tuple(map(_check_for, items))

    def check_each(value: object) -> object:
        listed = _check_list(value)
        if len(listed) != len(checks):
            raise Misfit(f"expected {len(checks)} items")
        return tuple(check(item) for check, item in zip(checks, listed, strict=True))

    return check_each
