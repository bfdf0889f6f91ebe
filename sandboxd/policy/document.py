"""The document of one question: an action, who asks, about which sandbox and when, as the JSON text that policy sees.

What an action looks like follows from its fields alone, and `schema` publishes the same. Called by `gate`.
"""

import hashlib
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

from sandboxd.action import Action, Pairs
from sandboxd.model import Caller
from sandboxd.policy.history import NO_HISTORY, History
from sandboxd.trace_context import Headers

API_VERSION = "sandboxd.io/v1"
MAX_DOCUMENT_BYTES = 1024 * 1024  # what is over it no engine is asked
# What differs from one question to the next although the same is asked: times and ids, by their places in the document.
MOMENT: tuple[tuple[str, ...], ...] = (
    ("time",),
    ("history",),
    ("sandbox", "id"),
    ("sandbox", "age_seconds"),
    ("action", "agent", "session_id"),
    ("action", "agent", "tool_use_id"),
    ("action", "pid"),
    ("action", "parent_pid"),
)
HISTORY = (("sandbox", "seen"),)
ACTIONS: tuple[type[Any], ...] = typing.get_args(Action)


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """The document of one question, as the JSON text that goes to the engine and, for replay, on record.

    `key` is a digest of all of it but MOMENT. `trace` goes with it to a server, and is no part of what is asked.
    """

    document: bytes
    key: bytes = b""
    trace: Headers = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What has happened in a sandbox so far: all false in a fresh one."""

    secret: bool = False
    untrusted_input: bool = False
    egress: bool = False


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What policy learns about the sandbox."""

    id: str
    runtime: str
    age_seconds: float = 0.0
    seen: Seen = Seen()


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    name: str
    digest: str
    labels: Pairs


class Question:
    """What is asked, apart from the moment. `key` is a digest of that, and is there before the document is written."""

    __slots__ = ("_action", "_node", "_sandbox", "_who", "key")

    def __init__(self, action: Action, caller: Caller, profile: ProfileFacts, sandbox: SandboxFacts, node: str) -> None:
        """ValueError if it cannot be written as JSON text (a lone surrogate, a number that is not finite)."""
        self._action = _Part(action, {"type": action.type})
        self._sandbox = _Part(sandbox, {})
        self._who = f'"caller":{_described(caller)},"profile":{_described(profile)}'
        self._node = _described(node)
        lasting = (
            f'{{"action":{self._action.lasting()},{self._who},"sandbox":{self._sandbox.lasting()},{self._where()}}}'
        )
        self.key = hashlib.sha256(lasting.encode()).digest()

    def at(self, time: str, history: History = NO_HISTORY, trace: Headers = ()) -> PolicyInput:
        """The policy input of design: action, caller, profile, sandbox, history, node, time, api_version.

        ValueError as above.
        """
        document = (
            f'{{"action":{self._action.whole()},{self._who},"sandbox":{self._sandbox.whole()},'
            f'"history":{as_text(as_json(history))},"time":{as_text(time)},{self._where()}}}'
        )
        return PolicyInput(document.encode(), self.key, trace)

    def _where(self) -> str:
        return f'"node":{self._node},"api_version":"{API_VERSION}"'


class _Part:
    """A member of the document that has something of the moment in it. What has not is written once, and first."""

    __slots__ = ("_changing", "_momentary", "_steady", "_value")

    def __init__(self, value: Action | SandboxFacts, first: dict[str, object]) -> None:
        steady, self._changing, self._momentary = _HALVES[type(value)]
        self._value = value
        self._steady = as_text({**first, **_members(value, steady)})

    def whole(self) -> str:
        return self._with(_members(self._value, self._changing))

    def lasting(self) -> str:
        members = _members(self._value, self._changing)
        for path in self._momentary:
            _drop(members, path)
        return self._with(members)

    def _with(self, members: dict[str, object]) -> str:
        return f"{self._steady[:-1]},{as_text(members)[1:]}" if members else self._steady


def policy_input(
    action: Action,
    caller: Caller,
    profile: ProfileFacts,
    sandbox: SandboxFacts,
    node: str,
    time: str,
    history: History = NO_HISTORY,
) -> PolicyInput:
    """One question, asked now."""
    return Question(action, caller, profile, sandbox, node).at(time, history)


def as_json(value: object) -> dict[str, object]:
    """An object with a member for each field; pairs are an object too."""
    return _members(value, _WRITERS[type(value)])


# Not ASCII: rego-cpp compares strings as they are written, and a policy's author writes "é", not "\u00e9".
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def as_text(value: object) -> str:
    """One value as JSON. ValueError for a number that is not finite."""
    return _ENCODER.encode(value)


# Few, and asked about all the time.
@lru_cache(maxsize=512)
def _described(value: Caller | ProfileFacts | str) -> str:
    return as_text(value if isinstance(value, str) else as_json(value))


def _drop(document: dict[str, object], path: tuple[str, ...]) -> None:
    """Take out what is there, if it is."""
    *ways, name = path
    inner: object = document
    for way in ways:
        inner = inner.get(way) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(name, None)


_Write = Callable[[Any], object]
_Members = tuple[tuple[str, _Write], ...]
_Paths = tuple[tuple[str, ...], ...]


def _members(value: object, members: _Members) -> dict[str, object]:
    return {name: write(getattr(value, name)) for name, write in members}


def _same(value: object) -> object:
    return value


def _each(values: tuple[object, ...]) -> object:
    return [as_json(value) for value in values]


def _if_any(value: object) -> object:
    return None if value is None else as_json(value)


def _writer(hint: Any) -> _Write:
    if hint == Pairs:
        return dict
    if is_dataclass(hint):
        return as_json
    if not any(map(is_dataclass, typing.get_args(hint))):
        return _same
    return _each if typing.get_origin(hint) is tuple else _if_any


def _writers(kind: type[Any]) -> _Members:
    hints = typing.get_type_hints(kind)
    return tuple((field.name, _writer(hints[field.name])) for field in fields(kind))


def _reached(kind: type[Any]) -> set[type[Any]]:
    hints = typing.get_type_hints(kind)
    named = [hints[field.name] for field in fields(kind)]
    parts = (part for hint in named for part in (hint, *typing.get_args(hint)))
    inner = {part for part in parts if isinstance(part, type) and is_dataclass(part)}
    return {kind}.union(*map(_reached, inner))


_WRITERS = {
    kind: _writers(kind) for top in (*ACTIONS, Caller, ProfileFacts, SandboxFacts, History) for kind in _reached(top)
}  # made once: this is the hot path of every action


def _halves(section: str, kind: type[Any]) -> tuple[_Members, _Members, _Paths]:
    """The members that have nothing of the moment in them, those that have, and what that is."""
    momentary = tuple(path[1:] for path in MOMENT if path[0] == section)
    changing = {path[0] for path in momentary}
    steady = tuple(member for member in _WRITERS[kind] if member[0] not in changing)
    return steady, tuple(member for member in _WRITERS[kind] if member[0] in changing), momentary


_HALVES: dict[type[Any], tuple[_Members, _Members, _Paths]] = {
    SandboxFacts: _halves("sandbox", SandboxFacts),
    **{kind: _halves("action", kind) for kind in ACTIONS},
}
