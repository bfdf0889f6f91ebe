"""A PORT of falcosidekick's checks, not falcosidekick: the Go module proxy does not serve the real one.

After falcosecurity/falcosidekick `handlers.go`, `types/types.go` and `types/priority.go` (of 2025), and what Go's
`encoding/json` does under them. Not ported: templated fields other than `{{ index . "NAME" }}`, statistics, and all
outputs but the webhook. `tests/falcosidekick_server.py` puts it behind HTTP.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter

PRIORITIES = ("Debug", "Informational", "Notice", "Warning", "Error", "Critical", "Alert", "Emergency")
MOST_BYTES = 4096
MOST_STRING_BYTES = 512
TEST_RULE = "Test rule"
_DEEPEST = 10_000
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_OPENING = re.compile(r"[0-9:]+\.[0-9]+: (Debug|Informational|Notice|Warning|Error|Critical|Alert|Emergency) .*", re.I)
_TEMPLATE = re.compile(r'\{\{\s*index \. "([^"]*)"\s*\}\}')
_LONE = re.compile("[\ud800-\udfff]")


class Rejected(Exception):
    """400, `Please send a valid request body`."""


class Panicked(Exception):
    """The handler died: the connection is closed without an answer."""


class Number(str):
    """A number as it was written (`UseNumber`)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Configuration:
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    templated_fields: Mapping[str, str] = field(default_factory=dict)
    custom_tags: tuple[str, ...] = ()
    output_field_format: str = ""


@dataclass(frozen=True, slots=True)
class Payload:
    uuid: str
    output: str
    priority: str
    rule: str
    time: str
    output_fields: dict[str, object]
    source: str
    tags: tuple[str, ...]
    hostname: str

    def marshalled(self) -> bytes:
        """What its outputs are sent: Go's JSON, fields in the order of the structure, those of a map sorted."""
        shown: dict[str, object] = {
            "uuid": self.uuid,
            "output": self.output,
            "priority": self.priority,
            "rule": self.rule,
            "time": self.time,
            "output_fields": self.output_fields,
            "source": self.source,
            "tags": list(self.tags),
            "hostname": self.hostname,
        }
        empty = {name for name in ("tags", "hostname") if not shown[name]}
        return _object((name, value) for name, value in shown.items() if name not in empty)


def accept(body: bytes, configuration: Configuration = Configuration()) -> Payload:
    """`newFalcoPayload` and `Check`."""
    payload = _decoded(body)
    fields = {**payload.output_fields, **configuration.custom_fields}
    for name in ("k8s.ns.name", "k8s.pod.name"):
        if name in fields and not (fields[name] is None or _is_text(fields[name])):
            raise Panicked(f"{name} is no string")
    for name, template in configuration.templated_fields.items():
        fields[name] = _TEMPLATE.sub(lambda found: _shown(fields.get(found[1])), template)
    payload = replace(
        payload,
        uuid=str(uuid.uuid4()),
        source="internal" if payload.rule == TEST_RULE else payload.source or "syscalls",
        tags=tuple(sorted((*payload.tags, *configuration.custom_tags))),
        output_fields=fields,
    )
    payload = _cut(_formatted(payload, configuration))
    if not (payload.priority and payload.rule and payload.time and payload.output_fields):
        raise Rejected("no priority, rule, time or output_fields")
    return payload


def _decoded(body: bytes) -> Payload:
    """The first JSON value of the body into the structure; what follows it is not looked at."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_int=Number, parse_float=Number)
    try:
        value, _ = decoder.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"no JSON: {error}") from error
    if not isinstance(value, dict) or _depth(value) > _DEEPEST:
        raise Rejected("no JSON object")
    named = {str(_paired(key)).casefold(): item for key, item in value.items()}  # names match in any case
    fields = named.get("output_fields")
    if not (fields is None or isinstance(fields, dict)):
        raise Rejected("output_fields is no object")
    tags = named.get("tags") or []
    if not isinstance(tags, list) or not all(_is_text(tag) or tag is None for tag in tags):
        raise Rejected("tags are no list of strings")
    texts = {name: _text_of(named.get(name), name) for name in ("output", "priority", "rule", "source", "hostname")}
    return Payload(
        uuid="",
        output=texts["output"],
        priority=_priority(texts["priority"]),
        rule=texts["rule"],
        time=_time(named.get("time")),
        output_fields={str(_paired(key)): _paired(item) for key, item in (fields or {}).items()},
        source=texts["source"],
        tags=tuple(str(_paired(tag or "")) for tag in tags),
        hostname=texts["hostname"],
    )


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def _text_of(value: object, name: str) -> str:
    if value is None:
        return ""
    if not _is_text(value):
        raise Rejected(f"{name} is no string")
    return str(_paired(value))


def _paired(value: object) -> object:
    """Half a surrogate pair becomes U+FFFD, as Go reads it."""
    return _LONE.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Number) else value


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
    return deepest


def _priority(text: str) -> str:
    lower = "informational" if text.lower() == "info" else text.lower()
    return next((name for name in PRIORITIES if name.lower() == lower), "")


def _time(value: object) -> str:
    """As Go writes it again: no zeros at the end of the fraction. Empty for its zero time."""
    if value is None:
        return ""
    match = _RFC_3339.fullmatch(str(value)) if _is_text(value) else None
    if match is None:
        raise Rejected(f"time is not RFC 3339: {value!r}")
    date, clock, fraction, zone = match.groups()
    try:
        when = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone == 'Z' else zone}")
    except ValueError as error:
        raise Rejected(f"time is not RFC 3339: {value!r}") from error
    fraction = (fraction or "")[:9].rstrip("0")
    if (when.year, when.month, when.day, clock, fraction, zone) == (1, 1, 1, "00:00:00", "", "Z"):
        return ""
    return f"{date}T{clock}{'.' if fraction else ''}{fraction}{zone}"


def _shown(value: object) -> str:
    return "<no value>" if value is None else str(value)


def _formatted(payload: Payload, configuration: Configuration) -> Payload:
    """`outputfieldformat`."""
    words = payload.output.split(" ")
    if not configuration.output_field_format or not _OPENING.search(payload.output) or len(words) < 3:
        return payload
    made = configuration.output_field_format
    for mark, text in (
        ("<timestamp>", words[0].removesuffix(":")),
        ("<priority>", payload.priority),
        ("<output>", " ".join(words[2:])),
        ("<custom_fields>", " ".join(f"{name}={text}" for name, text in configuration.custom_fields.items())),
        ("<tags>", ",".join(payload.tags)),
    ):
        made = made.replace(mark, text)
    for end in (" ", "( )", "()", " "):
        made = made.removesuffix(end)
    return replace(payload, output=made)


def _cut(payload: Payload) -> Payload:
    """Of an event over MOST_BYTES, each string of `output_fields` over MOST_STRING_BYTES loses its end."""
    if len(payload.marshalled()) <= MOST_BYTES:
        return payload
    fields, output = dict(payload.output_fields), payload.output
    for name, value in payload.output_fields.items():
        if isinstance(value, str) and _is_text(value) and len(value.encode()) > MOST_STRING_BYTES:
            cut = value.encode()[: MOST_STRING_BYTES - 5].decode(errors="replace") + "[...]"
            output = output.replace(value, cut)
            fields[name] = cut
    return replace(payload, output=output, output_fields=fields)


_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def _go_json(value: object) -> bytes:
    match value:
        case Number():
            return value.encode()
        case str():
            return json.dumps(_LONE.sub("\ufffd", value), ensure_ascii=False).translate(_ESCAPES).encode()
        case dict():
            return _object(sorted(((str(key), item) for key, item in value.items()), key=itemgetter(0)))
        case list():
            return b"[" + b",".join(map(_go_json, value)) + b"]"
        case _:
            return json.dumps(value).encode()


def _object(pairs: Iterable[tuple[str, object]]) -> bytes:
    return b"{" + b",".join(_go_json(name) + b":" + _go_json(value) for name, value in pairs) + b"}"
