"""Argument rules of system calls: comparisons of masked registers, the only kind libseccomp compiles faithfully.

A rule is a conjunction of matches, a call has alternatives; no alternative means refused, an empty rule means any
arguments. Pure values, never touches libseccomp. Used by `floor`, `seccomp`, `checks`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

WORD = 0xFFFFFFFF  # the kernel looks at 32 bits of an int argument; whatever is above is the caller's garbage


@dataclass(frozen=True, slots=True)
class Match:
    """`args[index] & mask == value`; value has no bit outside of mask."""

    index: int
    mask: int
    value: int

    def holds(self, args: Sequence[int]) -> bool:
        return args[self.index] & self.mask == self.value


Rule = tuple[Match, ...]
ANY: Rule = ()


def holds(alternatives: Iterable[Rule], args: Sequence[int]) -> bool:
    return any(all(match.holds(args) for match in rule) for rule in alternatives)


def one_of(index: int, values: Iterable[int], mask: int = WORD) -> tuple[Rule, ...]:
    return tuple((Match(index, mask, value & mask),) for value in values)


def both(first: Iterable[Rule], second: Iterable[Rule]) -> tuple[Rule, ...]:
    """Alternatives that hold exactly when one of `first` and one of `second` hold."""
    merged = (_conjoined(*pair) for pair in product(tuple(first), tuple(second)))
    return tuple(dict.fromkeys(rule for rule in merged if rule is not None))


def _conjoined(first: Rule, second: Rule) -> Rule | None:
    by_index = {match.index: match for match in first}
    for match in second:
        other = by_index.get(match.index)
        if other is None:
            by_index[match.index] = match
            continue
        if (other.value ^ match.value) & other.mask & match.mask:
            return None  # no register can satisfy both
        by_index[match.index] = Match(match.index, other.mask | match.mask, other.value | match.value)
    return tuple(by_index[index] for index in sorted(by_index))
