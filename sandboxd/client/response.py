"""What operators do about incidents, and what came of it: frozen data, no I/O. For calls of both clients."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Measure(StrEnum):
    """`FREEZE` has every program stand still, `QUARANTINE` also keeps them and denies their owner everything else."""

    FREEZE = "freeze"
    THAW = "thaw"
    KILL = "kill"
    QUARANTINE = "quarantine"
    LIFT = "lift"


class Effect(StrEnum):
    FROZEN = "frozen"
    THAWED = "thawed"
    KILLED = "killed"
    UNCHANGED = "unchanged"
    HELD = "held"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Target:
    """Exactly one of them is set. `subject` is a caller such as `uid:1000`."""

    execution_id: str = ""
    sandbox_id: str = ""
    tenant: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class ExecutionEffect:
    """What became of one execution that lived."""

    execution_id: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Of a whole tenant where `subject` is empty. `rule` is empty where an operator asked for it."""

    tenant: str
    subject: str
    since: datetime | None
    by: str
    rule: str
    comment: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A piece of a file about a sandbox; pieces of one follow each other. `name` is of a closed set."""

    name: str
    data: bytes
