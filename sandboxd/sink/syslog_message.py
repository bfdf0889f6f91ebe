"""One record as a syslog message of RFC 5424: header, structured data with our ids, and Falco JSON or a sentence.

Printable ASCII throughout, whatever a tenant wrote. Never over its bound: what is too long is sent shortened, with the
digest of its record, and says so. Used by the sink `syslog`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sandboxd.sink.base import Record
from sandboxd.sink.falco_event import falco_event

# RFC 5424, 6.2.1.
SEVERITIES: Mapping[str, int] = {
    "Emergency": 0,
    "Alert": 1,
    "Critical": 2,
    "Error": 3,
    "Warning": 4,
    "Notice": 5,
    "Informational": 6,
    "Debug": 7,
}
# Parameter names in the structured data; what is empty is left out.
_IDS = (
    ("tenant", "tenant"),
    ("subject", "subject"),
    ("execution_id", "execution"),
    ("sandbox_id", "sandbox"),
    ("trace_id", "trace"),
)
_NIL = "-"
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LEAST_BYTES = 480  # what RFC 5424 has every receiver take
_SHORTENED = (256, 96, 32)  # characters of each value, tried in order


@dataclass(frozen=True, slots=True)
class Form:
    """What all messages of a sink have in common."""

    facility: int
    app_name: str
    enterprise: int
    text: bool  # a sentence instead of JSON


def message(record: Record, form: Form, most_bytes: int) -> bytes:
    """At most that long, which must be LEAST_BYTES or more."""
    whole = _put_together(record, form, _content(record, form, None), 0, None)
    if len(whole) <= most_bytes:
        return whole
    for chars in _SHORTENED:
        shorter = _put_together(record, form, _content(record, form, chars), len(whole), chars)
        if len(shorter) <= most_bytes:
            return shorter
    # Still says what, when and where, how long it was, and which record of the journal has it all.
    return _put_together(record, form, "", len(whole), 0)


def _put_together(record: Record, form: Form, content: str, shortened: int, id_chars: int | None) -> bytes:
    """`shortened`: from so many bytes, 0 if it is not. `id_chars`: so much of each id of the record."""
    priority = form.facility * 8 + SEVERITIES.get(record.priority, SEVERITIES["Notice"])
    least = id_chars == 0
    header = " ".join(
        (
            f"<{priority}>1",
            f"{record.time[:26]}Z",  # six digits of the second at most
            _name(record.node, 64 if least else 255),
            form.app_name,
            _name(record.boot, 32),
            _name(record.rule, 32),
        )
    )
    return f"{header} {_structured(record, form, shortened, id_chars)} {content}".rstrip(" ").encode()


def _structured(record: Record, form: Form, shortened: int, id_chars: int | None) -> str:
    ids = dict(record.ids)
    values = [("seq", str(record.seq)), ("sha256", record.digest[:64])]
    values += [(name, value) for key, name in _IDS if (value := ids.get(key, "")[:id_chars])]
    if shortened:
        values.append(("shortened", str(shortened)))
    return f"[sandboxd@{form.enterprise} {' '.join(f'{name}={_quoted(value)}' for name, value in values)}]"


def _content(record: Record, form: Form, chars: int | None) -> str:
    event = falco_event(record)
    if form.text:
        return _printable(str(event["output"])[:chars])
    if chars is not None:
        fields = event["output_fields"]
        if isinstance(fields, dict):
            event["output_fields"] = {key: _shorter(value, chars) for key, value in fields.items()}
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


def _shorter(value: object, chars: int) -> object:
    return f"{value[:chars]}..." if isinstance(value, str) and len(value) > chars + 3 else value


def _quoted(value: str) -> str:
    """RFC 5424, 6.3.3: these three have a backslash before them. What is not printable ASCII is written out."""
    return '"' + re.sub(r'(["\\\]])', r"\\\1", _printable(value)) + '"'


def _printable(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).encode("ascii", "backslashreplace").decode()


def _name(text: str, most_chars: int) -> str:
    """PRINTUSASCII without spaces."""
    return _NOT_PRINTABLE.sub("?", text)[:most_chars] or _NIL


def counted(data: bytes) -> bytes:
    """RFC 6587, 3.4.1, and RFC 5425: its length, a space, and itself."""
    return b"%d %b" % (len(data), data)
