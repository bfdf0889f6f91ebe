"""One record as a Falco event: the JSON object that Falco's http_output sends and falcosidekick takes.

Never puts tenant text into a rule, a priority, a tag, an output sentence or a field's name. Used by every sink that
speaks this format; source: falcosecurity/falco `userspace/engine/formats.cpp`.
"""

import json
from calendar import timegm
from time import strptime

from sandboxd.sink.base import FieldValue, Record

FalcoValue = str | int | float | bool | None
SOURCE = "sandboxd"

# Falco's own names, and those of its gate for coding agents, where one means the same; else `sandbox.NAME`.
_NAMES = {
    "execution_id": "correlation.id",
    "sandbox_id": "container.id",
    "trace_id": "trace.id",
    "command": "proc.cmdline",
    "host_uid": "user.uid",
    "agent_name": "agent.name",
    "agent_session_id": "agent.session_id",
    "tool_name": "tool.name",
    "tool_use_id": "tool.use_id",
    "policy_revision": "opa.revision",
    "verdict": "opa.verdict",
    "reason_codes": "opa.reason_codes",
    "input_sha256": "audit.input_sha256",
}


def falco_event(record: Record) -> dict[str, object]:
    """Keys `time rule priority source hostname output tags output_fields`; `output_fields` is flat and never empty."""
    fields: dict[str, FalcoValue] = {
        "evt.time": time_ns(record.time),
        "evt.type": record.rule,
        "evt.hostname": record.node,
        "audit.seq": record.seq,
        "audit.boot": record.boot,
    }
    for name, value in (*record.ids, *record.fields):
        fields[_NAMES.get(name, f"sandbox.{name}")] = _flat(value)
    ids = dict(record.ids)
    sentence = f"{record.rule} (execution={ids.get('execution_id', '')} sandbox={ids.get('sandbox_id', '')})"
    return {
        "time": record.time,
        "rule": record.rule,
        "priority": record.priority,
        "source": SOURCE,
        "hostname": record.node,
        "output": f"{record.time[11:-1]}: {record.priority} {sentence}",
        "tags": [SOURCE, record.rule.partition(".")[0]],
        "output_fields": fields,
    }


def falco_line(record: Record) -> bytes:
    """The event on one line: printable ASCII whatever a tenant wrote."""
    return json.dumps(falco_event(record), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def time_ns(text: str) -> int:
    """Nanoseconds since the epoch of a record's `time`."""
    return timegm(strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000 + int(text[20:29])


def _flat(value: FieldValue) -> FalcoValue:
    if isinstance(value, tuple):
        return ",".join(_joined(item) for item in value)
    return value


def _joined(item: object) -> str:
    return "=".join(map(str, item)) if isinstance(item, tuple) else str(item)
