"""Reads a Falco event that somebody posts: which rule it is of, and whom it is about. Pure.

Takes nothing else out of it, above all no measure: what is in an event may come from whom it is about. Its form is that
of Falco's http_output (falcosecurity/falco `userspace/engine/formats.cpp`), of falcosidekick and of our own sinks.
"""

import json
import re
from dataclasses import dataclass

from sandboxd.response.demand import Kind, Target

MAX_RULE_CHARS = 256
MAX_FIELDS = 512
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_IDS = (("container.id", Kind.SANDBOX), ("correlation.id", Kind.EXECUTION))
_TENANT, _SUBJECT = "sandbox.tenant", "sandbox.subject"


class NoEvent(Exception):
    """What is no Falco event; the message is a constant."""


@dataclass(frozen=True, slots=True)
class FalcoEvent:
    """`target` is None where it names nothing of ours."""

    rule: str
    target: Target | None


def read(body: bytes) -> FalcoEvent:
    try:
        event = json.loads(body.decode(), object_pairs_hook=_unambiguous, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise NoEvent("not_json") from error
    if not isinstance(event, dict):
        raise NoEvent("not_an_event")
    rule, fields = event.get("rule"), event.get("output_fields")
    if not isinstance(rule, str) or not 0 < len(rule) <= MAX_RULE_CHARS:
        raise NoEvent("not_an_event")
    if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
        raise NoEvent("not_an_event")
    return FalcoEvent(rule, _target(fields))


def _target(fields: dict[str, object]) -> Target | None:
    """One with an id concerns that sandbox and nobody else, also where the id is not one of ours."""
    named = [(kind, value) for name, kind in _IDS if (value := fields.get(name)) not in (None, "")]
    for kind, value in named:
        if isinstance(value, str) and _ID.fullmatch(value):
            return Target(kind, value)
    if named:
        return None
    for name, kind in ((_SUBJECT, Kind.SUBJECT), (_TENANT, Kind.TENANT)):
        if (value := fields.get(name)) not in (None, ""):
            return Target(kind, value) if isinstance(value, str) else None
    return None


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Two readers of one event must not find two targets in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refused(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
