"""What a response is asked to be: which measure, against whom, on whose word. Frozen data.

Made by `rpc` and by the response listener; carried out by `responder`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Measure(StrEnum):
    FREEZE = "freeze"  # nothing of it runs another instruction
    THAW = "thaw"
    KILL = "kill"
    QUARANTINE = "quarantine"  # freeze, keep, and deny its owner every further action
    LIFT = "lift"  # and thaw what was frozen with it
    EXAMINE = "examine"  # take evidence, and change nothing


class Kind(StrEnum):
    """What a target is named by."""

    SANDBOX = "sandbox"
    EXECUTION = "execution"
    TENANT = "tenant"
    SUBJECT = "subject"  # of the one tenant that there is


@dataclass(frozen=True, slots=True)
class Target:
    kind: Kind
    id: str


@dataclass(frozen=True, slots=True)
class Demand:
    """`rule` is the one that the measure was mapped from; empty if an operator asks."""

    measure: Measure
    target: Target
    rule: str = ""
    comment: str = ""


class Effect(StrEnum):
    """What became of one execution."""

    FROZEN = "frozen"
    THAWED = "thawed"
    KILLED = "killed"
    UNCHANGED = "unchanged"  # it was so already
    HELD = "held"  # frozen, and kept until the quarantine is lifted
    EXAMINED = "examined"
    FAILED = "failed"  # it goes on as it was


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of each execution that the target names and that had not ended."""

    measure: Measure
    effects: tuple[tuple[str, Effect], ...]  # execution id
