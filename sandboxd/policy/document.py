"""The document of one question: an action, who asks, about which sandbox and when, as the JSON text that policy sees.

What an action looks like follows from its fields alone, and `schema` publishes the same. Called by `gate`.
"""

import hashlib
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from sandboxd.action import Action, Pairs
from sandboxd.model import Caller
from sandboxd.policy.history import NO_HISTORY, History

API_VERSION = "sandboxd.io/v1"
MAX_DOCUMENT_BYTES = 1024 * 1024  # what is over it no engine is asked
# What differs from one question to the next although the same is asked: times and ids, by their places in the document.
MOMENT = (
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

    `key` is a digest of all of it but MOMENT.
    """

    document: bytes
    key: bytes = b""


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


def policy_input(
    action: Action,
    caller: Caller,
    profile: ProfileFacts,
    sandbox: SandboxFacts,
    node: str,
    time: str,
    history: History = NO_HISTORY,
) -> PolicyInput:
    """The policy input of design: action, caller, profile, sandbox, node, time, api_version; and the history.

    ValueError if it cannot be written as JSON text (a lone surrogate, a number that is not finite).
    """
    document: dict[str, object] = {
        "action": {"type": action.type, **as_json(action)},
        "caller": as_json(caller),
        "profile": as_json(profile),
        "sandbox": as_json(sandbox),
        "history": as_json(history),
        "node": node,
        "time": time,
        "api_version": API_VERSION,
    }
    whole = _json(document)
    for path in MOMENT:
        _drop(document, path)
    return PolicyInput(whole, hashlib.sha256(_json(document)).digest())


def as_json(value: object) -> dict[str, object]:
    """An object with a member for each field; pairs are an object too."""
    return {name: write(getattr(value, name)) for name, write in _WRITERS[type(value)]}


# Not ASCII: rego-cpp compares strings as they are written, and a policy's author writes "é", not "\u00e9".
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def _drop(document: dict[str, object], path: tuple[str, ...]) -> None:
    """Take out what is there, if it is."""
    *ways, name = path
    inner: object = document
    for way in ways:
        inner = inner.get(way) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(name, None)


_Write = Callable[[Any], object]


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


def _writers(kind: type[Any]) -> tuple[tuple[str, _Write], ...]:
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
