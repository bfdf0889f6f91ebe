"""Limits as a table: least sensible value, unit, the guarantee each one stands for, and what lower means.

The explicit list of what a request or a policy may override: a name that is not here cannot be. Pure. Used by `checks`,
`resolve` and `report`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sandboxd.model import Guarantee, Limits


@dataclass(frozen=True, slots=True)
class LimitRule:
    """`zero_is_off`: 0 means no limit at all, hence more than any number."""

    guarantee: Guarantee
    minimum: float
    integral: bool = True
    zero_is_off: bool = False


RULES: dict[str, LimitRule] = {
    "wall_seconds": LimitRule(Guarantee.LIMIT_WALL, 0.01, integral=False),
    "idle_seconds": LimitRule(Guarantee.LIMIT_IDLE, 0.01, integral=False, zero_is_off=True),
    "cpu_seconds": LimitRule(Guarantee.LIMIT_CPU_TIME, 0.01, integral=False),
    "cpus": LimitRule(Guarantee.LIMIT_CPUS, 0.01, integral=False),
    "memory_bytes": LimitRule(Guarantee.LIMIT_MEMORY, 4 << 20),
    "pids": LimitRule(Guarantee.LIMIT_PIDS, 1),
    "open_files": LimitRule(Guarantee.LIMIT_OPEN_FILES, 8),
    "file_size_bytes": LimitRule(Guarantee.LIMIT_FILE_SIZE, 1),
    "workspace_bytes": LimitRule(Guarantee.LIMIT_WORKSPACE, 64 << 10),
    "workspace_inodes": LimitRule(Guarantee.LIMIT_WORKSPACE, 16),
    "tmp_bytes": LimitRule(Guarantee.LIMIT_TMP, 64 << 10),
    "tmp_inodes": LimitRule(Guarantee.LIMIT_TMP, 16),
    "stdout_bytes": LimitRule(Guarantee.LIMIT_OUTPUT, 0),
    "stderr_bytes": LimitRule(Guarantee.LIMIT_OUTPUT, 0),
    "output_bytes": LimitRule(Guarantee.LIMIT_OUTPUT, 1),
    "output_files_bytes": LimitRule(Guarantee.LIMIT_OUTPUT, 0),
    "output_files": LimitRule(Guarantee.LIMIT_OUTPUT, 0),
    "io_read_bytes_per_second": LimitRule(Guarantee.LIMIT_IO, 4096, zero_is_off=True),
    "io_write_bytes_per_second": LimitRule(Guarantee.LIMIT_IO, 4096, zero_is_off=True),
}


_MOST = 1 << 63  # the kernel counts no further


class BadLimit(ValueError):
    """A name or value that no profile could have; the message says what would do."""


def checked(name: str, value: float) -> float:
    """The value itself if it is one that a limit of that name can have, else `BadLimit`."""
    rule = RULES.get(name)
    if rule is None:
        raise BadLimit(f"{name!r} is not a limit; known are {', '.join(RULES)}")
    if not -_MOST < value < _MOST:  # nor is what is not finite
        raise BadLimit(f"{name}: {value!r} is not a number of anything")
    if rule.integral and value != int(value):
        raise BadLimit(f"{name}: {value!r} is not a whole number")
    if value < rule.minimum and not (rule.zero_is_off and value == 0):
        raise BadLimit(f"{name}: {value!r} is below the least that works, {rule.minimum!r}")
    return value


def get(limits: Limits, name: str) -> float:
    value: float = getattr(limits, name)
    return value


def looser(name: str, value: float, than: float) -> bool:
    """Whether `value` allows more than `than`."""
    rule = RULES[name]
    return _weight(rule, value) > _weight(rule, than)


def _weight(rule: LimitRule, value: float) -> float:
    return math.inf if rule.zero_is_off and value == 0 else value


def with_values(limits: Limits, values: Iterable[tuple[str, float]]) -> Limits:
    """These limits with some values replaced; whole where the limit is counted."""
    changes = {name: int(value) if RULES[name].integral else float(value) for name, value in values}
    return replace(limits, **changes)  # type: ignore[arg-type]
