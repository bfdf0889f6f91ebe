"""One record as a Falco event: the JSON object that Falco's http_output sends and falcosidekick takes.

Never puts tenant text into a rule, a priority, a tag, an output sentence or a field's name. Used by every sink that
speaks this format; source: falcosecurity/falco `userspace/engine/formats.cpp`.
"""

import json
import math
import re
from calendar import timegm

from sandboxd.sink.base import FieldValue, Record

FalcoValue = str | int | float | bool | None
SOURCE = "sandboxd"
MOST_BYTES = 512  # of one string: falcosidekick cuts longer ones in a long event

# Falco's own names, and those of its gate for coding agents, where one means the same; and what any event may have.
_NAMES = {
    "tenant": "sandbox.tenant",
    "subject": "sandbox.subject",
    "execution_id": "correlation.id",
    "sandbox_id": "container.id",
    "trace_id": "trace.id",
    "command": "proc.cmdline",
    "cwd": "proc.cwd",
    "pid": "proc.pid",
    "parent_pid": "proc.ppid",
    "host_uid": "user.uid",
    "agent_name": "agent.name",
    "agent_session_id": "agent.session_id",
    "tool_name": "tool.name",
    "tool_use_id": "tool.use_id",
    "policy_revision": "opa.revision",
    "action": "opa.action",
    "verdict": "opa.verdict",
    "reason_codes": "opa.reason_codes",
    "engine": "opa.engine",
    "remembered": "opa.remembered",
}
# Where a name means this only in events of that noun.
_NAMES_OF_NOUN = {
    ("process", "image"): "proc.exepath",
    ("syscall", "name"): "syscall.type",
    ("syscall", "errno"): "evt.res",
}
# All other names are ours, below what their event is about; digests are the audit's.
_PREFIXES = {"policy": "opa", "approval": "opa", "journal": "audit.journal", "sink": "audit.sink"}
_EVERY = ("evt.time", "evt.type", "evt.hostname", "audit.seq", "audit.boot", "audit.digest")

# What an output sentence tells besides ids: closed sets of words, and left out where it is no such word.
_TOLD = ("action", "verdict", "end_reason", "layer")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,31}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LONE = re.compile("[\ud800-\udfff]")
_LARGEST = 2**63


def field_name(rule: str, name: str) -> str:
    """The key in `output_fields` of that field of that rule's events."""
    noun = rule.partition(".")[0]
    if not name.isascii():
        name = _bounded(name)  # none of ours: somebody wrote to the disk
    if known := _NAMES_OF_NOUN.get((noun, name)) or _NAMES.get(name):
        return known
    if name.endswith(("_sha256", "_hmac")):
        return f"audit.{name}"
    return f"{_PREFIXES.get(noun, 'sandbox')}.{name}"


def derived_names(rule: str) -> tuple[str, ...]:
    """The keys that an event of that rule has besides those of its fields."""
    return (*_EVERY, "proc.name") if rule.startswith("process.") else _EVERY


def falco_event(record: Record) -> dict[str, object]:
    """Keys `time rule priority source hostname output tags output_fields`; `output_fields` is flat and never empty.

    An id that is empty is left out. A string over MOST_BYTES in UTF-8 ends in "…": its record, which `audit.seq` and
    `audit.digest` name, has more of it.
    """
    rule = _bounded(record.rule)
    return {
        "time": record.time,
        "rule": rule,
        "priority": _bounded(record.priority),
        "source": SOURCE,
        "hostname": _bounded(record.node),
        "output": _sentence(record),
        "tags": [SOURCE, rule.partition(".")[0]],
        "output_fields": output_fields(record),
    }


def output_fields(record: Record) -> dict[str, FalcoValue]:
    texts = _bounded(record.rule), _bounded(record.node)
    every = (time_ns(record.time), *texts, _flat(record.seq), _bounded(record.boot), record.digest)
    fields: dict[str, FalcoValue] = dict(zip(_EVERY, every, strict=True))
    for name, value in record.ids:
        if value:
            fields[field_name(record.rule, name)] = _bounded(value)
    for name, field in record.fields:
        fields[field_name(record.rule, name)] = _flat(field)
        if name == "image" and isinstance(field, str) and record.rule.startswith("process."):
            fields["proc.name"] = _bounded(field.rpartition("/")[2])
    return fields


def falco_line(record: Record) -> bytes:
    """The event on one line: printable ASCII whatever a tenant wrote."""
    return json.dumps(falco_event(record), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def time_ns(text: str) -> int:
    """Nanoseconds since the epoch of a record's `time`."""
    clock = (text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19])
    return timegm(tuple(map(int, clock))) * 1_000_000_000 + int(text[20:29])


def _sentence(record: Record) -> str:
    """Falco's own opening, the rule, and in brackets what anyone may read."""
    fields, ids = dict(record.fields), dict(record.ids)
    told = [(name, fields[name]) for name in _TOLD if _is(_WORD, fields.get(name))]
    told += [(name, ids[f"{name}_id"]) for name in ("execution", "sandbox") if _is(_ID, ids.get(f"{name}_id"))]
    shown = " ".join(f"{name}={value}" for name, value in told)
    opening = _bounded(f"{record.time[11:-1]}: {record.priority} {record.rule}")
    return f"{opening} ({shown})" if shown else opening


def _is(words: re.Pattern[str], value: FieldValue) -> bool:
    return isinstance(value, str) and words.fullmatch(value) is not None


def _flat(value: FieldValue) -> FalcoValue:
    match value:
        case tuple():
            return _bounded(",".join(map(_joined, value)))
        case str():
            return _bounded(value)
        case int() if not -_LARGEST <= value < _LARGEST:
            return _bounded(hex(value))  # no reader has such a number
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _joined(item: object) -> str:
    return "=".join(map(_joined, item)) if isinstance(item, tuple) else str(item)


def _bounded(text: str) -> str:
    """Half a surrogate pair is no text: strict readers of JSON would refuse all of the event."""
    if not text.isascii():
        text = _LONE.sub("\ufffd", text)
    if len(text) * 4 <= MOST_BYTES or len(encoded := text.encode()) <= MOST_BYTES:
        return text
    return encoded[: MOST_BYTES - 3].decode(errors="ignore") + "…"
