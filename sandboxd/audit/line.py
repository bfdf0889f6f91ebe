"""One record of the journal as one line: canonical JSON, chained to the line before by its SHA-256.

Never lets tenant text out of a string: everything but printable ASCII is escaped, so a line is always one line. Called
by `audit.recorder`, `audit.journal` and `audit.cursor`.
"""

import hashlib
import json
import math
import re
import time
from calendar import timegm
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TypeVar

from sandboxd.audit.digest import PLAIN, Digest
from sandboxd.event import EXCERPT_CHARS, Event
from sandboxd.sink.base import FieldValue, Record

T = TypeVar("T")
VERSION = 1
FIRST_PREV = "0" * 64
MAX_ITEMS = 256
_DEEPEST = 16  # an event's lists of pairs have 2
_TOO_DEEP = "…"
_LARGEST = 2**63
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{9}Z", re.ASCII)
_IDS = tuple(field.name for field in fields(Event))
_OWN_NAMES: dict[type[Event], tuple[str, ...]] = {}
_KEYS = frozenset({"boot", "fields", "ids", "node", "prev", "priority", "rule", "seq", "time", "v"})


class LineDamaged(Exception):
    """A line that is not one of ours; the message says in what."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where the chain stands: the next line has sequence number `seq` + 1 and `prev` = `digest`."""

    seq: int
    digest: str


ORIGIN = Link(0, FIRST_PREV)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def body(event: Event, digest: Digest = PLAIN) -> dict[str, object]:
    """The event's own part of its record: `rule`, `priority`, `ids`, `fields`, every string within EXCERPT_CHARS.

    `digest` is of what is cut, and keyed wherever that may hold tenant text.
    """
    ids, values = _values(event, _IDS, digest), _values(event, _own_names(type(event)), digest)
    return {"rule": event.rule, "priority": event.urgency(), "ids": ids, "fields": values}


def _own_names(kind: type[Event]) -> tuple[str, ...]:
    names = _OWN_NAMES.get(kind)
    if names is None:
        names = _OWN_NAMES[kind] = tuple(field.name for field in fields(kind) if field.name not in _IDS)
    return names


def _values(event: Event, names: tuple[str, ...], digest: Digest) -> dict[str, object]:
    values: dict[str, object] = {}
    for name in names:
        value = getattr(event, name)
        if type(value) is str and len(value) <= EXCERPT_CHARS:
            values[name] = value  # nearly all of them, and this is on the way of every execution
        else:
            _put(values, name, value, digest)
    return values


def _put(into: dict[str, object], name: str, value: object, digest: Digest) -> None:
    """A string that is cut leaves its digest beside it, a sequence its length."""
    if isinstance(value, str) and len(value) > EXCERPT_CHARS:
        into[name] = value[:EXCERPT_CHARS]
        into.setdefault(f"{name}_{digest.name}", digest.of_text(value))
    elif isinstance(value, tuple) and len(value) > MAX_ITEMS:
        into[name] = [_item(item, digest, 1) for item in value[:MAX_ITEMS]]
        into[f"{name}_count"] = len(value)
    else:
        into[name] = _item(value, digest)


def _item(value: object, digest: Digest, depth: int = 0) -> object:
    """As `decode` takes it: a record is never refused, nor unreadable, for what was to be written."""
    if isinstance(value, str):
        if len(value) <= EXCERPT_CHARS:
            return value
        mark = f"…{digest.name}:{digest.of_text(value)}"
        return value[: EXCERPT_CHARS - len(mark)] + mark
    if isinstance(value, tuple):
        return [_item(item, digest, depth + 1) for item in value[:MAX_ITEMS]] if depth < _DEEPEST else _TOO_DEEP
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return _item(hex(value), digest)  # few readers of JSON have such a number, and of some length not even ours
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value


def encode(content: dict[str, object], link: Link, boot: str, node: str, time_ns: int) -> bytes:
    """The line that follows `link`, with its newline."""
    record = {
        **content,
        "v": VERSION,
        "seq": link.seq + 1,
        "prev": link.digest,
        "boot": boot,
        "node": node,
        "time": timestamp(time_ns),
    }
    return _ENCODER.encode(record).encode() + b"\n"


def follow(link: Link, line: bytes) -> Link:
    """The chain after `line` (without its newline), which is ours already: nothing is checked."""
    return Link(link.seq + 1, hashlib.sha256(line).hexdigest())


def check(link: Link, line: bytes) -> Link:
    """The chain after `line`; LineDamaged unless it is canonical, next in sequence, and names the line before."""
    record = parse(line)
    if record["seq"] != link.seq + 1:
        raise LineDamaged(f"sequence number {record['seq']!r} where {link.seq + 1} is due: missing, added or reordered")
    if record["prev"] != link.digest:
        raise LineDamaged("it does not name the line before: that one or this one was edited, or one was taken out")
    if not is_canonical(record, line):
        raise LineDamaged("it is not canonical JSON: it was edited")
    return follow(link, line)


def is_canonical(record: dict[str, object], line: bytes) -> bool:
    """Whether a record that was parsed from `line` is written just so."""
    try:
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() == line
    except RecursionError:
        return False  # writing takes more stack than reading, and no record of ours is that deep


def decode(line: bytes) -> Record:
    record = parse(line)
    ids, values = record["ids"], record["fields"]
    if not isinstance(ids, dict) or not isinstance(values, dict):
        raise LineDamaged("ids and fields are not objects")
    if not _is_time(_typed(record, "time", str)):
        raise LineDamaged("its time is no time")
    return Record(
        seq=_typed(record, "seq", int),
        boot=_typed(record, "boot", str),
        node=_typed(record, "node", str),
        time=_typed(record, "time", str),
        rule=_typed(record, "rule", str),
        priority=_typed(record, "priority", str),
        ids=tuple((str(name), str(value)) for name, value in ids.items()),
        fields=tuple((str(name), _value(value)) for name, value in values.items()),
        prev=_typed(record, "prev", str),
        digest=hashlib.sha256(line).hexdigest(),
    )


def _is_time(text: str) -> bool:
    match = _TIME.fullmatch(text)
    try:
        return match is not None and bool(datetime.fromisoformat(match[1]))
    except ValueError:
        return False


def before(line: bytes) -> Link:
    """Where the chain stands just before `line`, as the line itself has it."""
    record = parse(line)
    return Link(_typed(record, "seq", int) - 1, _typed(record, "prev", str))


def timestamp(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def written_ns(line: bytes) -> int:
    """When the record of that line was written, nanoseconds since the epoch. LineDamaged if it does not say."""
    text = decode(line).time
    try:
        return timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000 + int(text[20:29])
    except (ValueError, OverflowError) as error:
        raise LineDamaged(f"its time is no time: {text!r:.40}") from error


def parse(line: bytes) -> dict[str, object]:
    """LineDamaged unless it has the keys of a record; of their values only the version is looked at."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineDamaged(f"it is not JSON: {error}") from error
    if not isinstance(record, dict) or record.keys() != _KEYS:
        raise LineDamaged(f"its keys are not {sorted(_KEYS)}")
    if record["v"] != VERSION:
        raise LineDamaged(f"schema version {record['v']!r} is not {VERSION}")
    return record


def _typed(record: dict[str, object], name: str, kind: type[T]) -> T:
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise LineDamaged(f"{name} is not {kind.__name__}")
    return value


def _value(value: object, depth: int = 0) -> FieldValue:
    if depth > _DEEPEST:
        raise LineDamaged(f"a field is nested deeper than {_DEEPEST}")
    if isinstance(value, list):
        return tuple(_value(item, depth + 1) for item in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise LineDamaged("a field holds an object")
