"""One record as a CloudEvent 1.0: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md.

`data` is the record's line of the journal as it stands there, so that its SHA-256 can be checked: it is the attribute
`digest`. Never puts tenant text into an attribute. Used by `cloudevents`.
"""

import json
import re
from urllib.parse import quote

from sandboxd.audit.line import VERSION
from sandboxd.sink.base import Record
from sandboxd.trace_context import is_trace_id

TYPE = "io.sandboxd."

# Extension `severity`, by OpenTelemetry's numbers.
_SEVERITIES = {
    "Debug": 5,
    "Informational": 9,
    "Notice": 10,
    "Warning": 13,
    "Error": 17,
    "Critical": 18,
    "Alert": 19,
    "Emergency": 21,
}
_ID = re.compile(r"[0-9a-f]{1,64}", re.ASCII)
_LONE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = "\\ud"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def cloud_event(record: Record) -> bytes:
    """As JSON, printable ASCII whatever a tenant wrote."""
    ids = dict(record.ids)
    attributes: dict[str, object] = {
        "specversion": "1.0",
        "id": f"{record.boot}-{record.seq}",
        "source": f"/sandboxd/nodes/{quote(record.node, safe='')}",
        "type": f"{TYPE}{record.rule}",
        "time": record.time,
        "datacontenttype": "application/json",
        "sequence": f"{record.seq:020d}",  # to be compared as text
        "severitytext": record.priority,
        "severitynumber": _SEVERITIES.get(record.priority, _SEVERITIES["Informational"]),
        "data": {
            "v": VERSION,
            "boot": record.boot,
            "seq": record.seq,
            "prev": record.prev,
            "node": record.node,
            "time": record.time,
            "rule": record.rule,
            "priority": record.priority,
            "ids": ids,
            "fields": dict(record.fields),
        },
    }
    if record.digest:
        attributes["digest"] = record.digest
    for name, kind in (("execution_id", "executions"), ("sandbox_id", "sandboxes")):
        named = ids.get(name, "")
        if _ID.fullmatch(named):
            attributes["subject"] = f"{kind}/{named}"
            attributes["partitionkey"] = named
            break
    if is_trace_id(ids.get("trace_id", "")) and record.digest:
        # The event itself is what a consumer continues from: it has no span, so it goes by its own digest.
        attributes["traceparent"] = f"00-{ids['trace_id']}-{record.digest[:16]}-00"
    encoded = _ENCODER.encode(attributes)
    if _ESCAPED_SURROGATE in encoded:
        encoded = _ENCODER.encode(_text_only(attributes))
    return encoded.encode()


def _text_only(value: object) -> object:
    """Half a surrogate pair is no text: strict readers of JSON refuse all of it. Its digest tells that it was there."""
    match value:
        case str():
            return _LONE.sub("\ufffd", value)
        case dict():
            return {name: _text_only(item) for name, item in value.items()}
        case tuple():
            return [_text_only(item) for item in value]
        case _:
            return value
