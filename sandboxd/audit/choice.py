"""Which records of the journal a sink's filter lets through, told from a line's end without reading the rest.

Never takes a line for one that it is not: tenant text is inside JSON strings, where a quote has a backslash before it,
and what is looked at ends the line. Called by `audit.cursor`.
"""

import re
from dataclasses import dataclass
from typing import get_args

from sandboxd.event import Priority
from sandboxd.settings.sinks.base import Filter
from sandboxd.sink.base import Record

PRIORITIES: tuple[Priority, ...] = get_args(Priority)  # the most urgent first
_LONGEST_END = 256
# Keys are in sorted order in every line: these come last.
_END = re.compile(
    rb',"priority":"([A-Z][a-z]+)","rule":"([a-z_]+\.[a-z_]+)","seq":([1-9][0-9]*),"time":"([0-9T:.-]+Z)","v":1\}\Z'
)


@dataclass(frozen=True, slots=True)
class Head:
    """What the end of a line tells of its record."""

    seq: int
    time: str
    rule: str
    priority: str


def head(line: bytes) -> Head | None:
    """None if the line does not end as those of ours do: then it has to be read whole."""
    found = _END.search(line, max(0, len(line) - _LONGEST_END))
    if found is None:
        return None
    priority, rule, seq, time = found.groups()
    return Head(int(seq), time.decode(), rule.decode(), priority.decode())


class Choice:
    """One filter, ready to be asked about each record."""

    def __init__(self, wanted: Filter) -> None:
        self._names = frozenset(rule for rule in wanted.rules if not rule.endswith(".*"))
        self._nouns = frozenset(rule.removesuffix(".*") for rule in wanted.rules if rule.endswith(".*"))
        self._priorities = frozenset(PRIORITIES[: PRIORITIES.index(wanted.priority) + 1])
        self._tenants = frozenset(wanted.tenants)

    def may_take(self, rule: str, priority: str) -> bool:
        """False: whatever else is in that record, it is left out. A priority that is none of ours is let through."""
        if priority not in self._priorities and priority in PRIORITIES:
            return False
        if not self._names and not self._nouns:
            return True
        return rule in self._names or rule.partition(".")[0] in self._nouns

    def takes(self, record: Record) -> bool:
        """An event that concerns no tenant has the empty one."""
        if not self.may_take(record.rule, record.priority):
            return False
        return not self._tenants or dict(record.ids).get("tenant", "") in self._tenants
