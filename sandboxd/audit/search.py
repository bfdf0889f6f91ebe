"""What is looked for in the journal, and whether a record is it: the one meaning of query, tail and plain scan.

Pure; text that is looked for is data, never a pattern. Called by `audit.index`, which may only find candidates sooner,
and by `audit.lookup`, `audit.tail` and `audit.history`, which decide by it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from sandboxd.event import Priority
from sandboxd.sink.base import FieldValue, Record

PRIORITIES: tuple[str, ...] = get_args(Priority)  # the most urgent first
MAX_TEXT_CHARS = 512
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}", re.ASCII)
_PART_OF_DIGEST = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Search:
    """All conditions together; an empty one is none. Times are as the journal writes them: `since` ≤ time < `until`.

    `rule` may end in `*`. `text` is contained in one of the values, whatever the case of its letters.
    """

    since: str = ""
    until: str = ""
    tenant: str = ""
    execution_id: str = ""
    sandbox_id: str = ""
    rule: str = ""
    verdict: str = ""
    minimum_priority: str = ""
    text: str = ""


def matches(search: Search, record: Record) -> bool:
    ids = dict(record.ids)
    return (
        (not search.since or record.time >= search.since)
        and (not search.until or record.time < search.until)
        and search.tenant in ("", ids.get("tenant", ""))
        and search.execution_id in ("", ids.get("execution_id", ""))
        and search.sandbox_id in ("", ids.get("sandbox_id", ""))
        and _is_rule(search.rule, record.rule)
        and search.verdict in ("", verdict(record))
        and (not search.minimum_priority or urgency(record.priority) <= urgency(search.minimum_priority))
        and (not search.text or any(folded(search.text) in value for value in values(record)))
    )


def _is_rule(wanted: str, rule: str) -> bool:
    if wanted.endswith("*"):
        return rule.startswith(wanted[:-1])
    return wanted in ("", rule)


def urgency(priority: str) -> int:
    """0 is the most urgent; what is no priority is the least."""
    return PRIORITIES.index(priority) if priority in PRIORITIES else len(PRIORITIES)


def verdict(record: Record) -> str:
    for name, value in record.fields:
        if name == "verdict" and isinstance(value, str):
            return value
    return ""


def values(record: Record) -> Iterator[str]:
    """Every value of the record as text, folded."""
    for _, text in record.ids:
        yield folded(text)
    for _, value in record.fields:
        yield from _texts(value)


def folded(text: str) -> str:
    """Without regard to case, and of characters that UTF-8 has: each stands for itself, wherever it is."""
    if text.isascii():
        return text.lower()
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.casefold()


def is_digest(value: str) -> bool:
    """An id or a digest, of which nobody remembers a part: too many of them to index."""
    return _DIGEST.fullmatch(value) is not None


def is_part_of_digest(text: str) -> bool:
    """May such a value contain it?"""
    return _PART_OF_DIGEST.fullmatch(text) is not None


def _texts(value: FieldValue | object) -> Iterator[str]:
    if isinstance(value, tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield folded(value)
    elif value is not None:
        yield str(value).lower()
