"""Proof that a filter answers every call as it should: all architectures, numbers and arguments, none of them sampled.

Holds each end of `walk` against what is wanted of exactly the calls that come there, then runs one of each kind. May
call a right filter unproven and never a wrong one right. Called by `seccomp`.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandboxd.profile import bpf
from sandboxd.profile.bits import NOTHING
from sandboxd.profile.bpf import Call, Instruction
from sandboxd.profile.rules import ANY, WORD, Rule, holds
from sandboxd.profile.walk import ARCH, FIRST_ARGUMENT, End, Known, Unproven, ends, split

MOST_KINDS = 50_000  # a shipped filter has 600; those of rules that overlap in many bits double with each


@dataclass(frozen=True, slots=True)
class Case:
    """The action for arguments that satisfy one of the alternatives, unless a case before this one has them."""

    alternatives: tuple[Rule, ...]
    action: int


Cases = tuple[Case, ...]


def always(action: int) -> Cases:
    return (Case((ANY,), action),)


def answer(cases: Cases, args: Sequence[int]) -> int:
    return next(case.action for case in cases if holds(case.alternatives, args))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a filter must answer. `numbers` ascend from 0; the cases of each, up to `always`, hold until the next."""

    arch: int
    foreign: int
    numbers: tuple[tuple[int, Cases], ...]

    def action(self, call: Call) -> int:
        if call.arch != self.arch:
            return self.foreign
        ((_, cases),) = self.within(call.number, call.number)
        return answer(cases, call.args)

    def within(self, first: int, last: int) -> Iterator[tuple[int, Cases]]:
        """A number of each range that meets first…last, and its cases."""
        for start, cases in self.numbers[bisect_right(self.numbers, first, key=_number) - 1 :]:
            if start > last:
                return
            yield max(first, start), cases


def _number(entry: tuple[int, Cases]) -> int:
    return entry[0]


def difference(program: Sequence[Instruction], wanted: Wanted) -> Call | None:
    """A call that this decoded program answers otherwise than wanted; None if there is none."""
    kinds = ((end, *kind) for end in ends(program) for kind in _kinds(end, wanted))
    for count, (end, number, known, action) in enumerate(kinds):
        if count == MOST_KINDS:
            raise Unproven(f"more than {MOST_KINDS} kinds of calls; write the rules with fewer masks that overlap")
        call = _example(number, known)
        if call is None:
            continue
        if (bpf.run(program, call), wanted.action(call)) != (end.action, action):
            raise Unproven(f"{call} does not end where the walk says")
        if end.action != action:
            return call
    return None


def _kinds(end: End, wanted: Wanted) -> Iterator[tuple[int, Known, int]]:
    """What comes to this end, apart by what is wanted of it: a number, what is known, and the action."""
    ours, foreign = split(end.known, ARCH, WORD, wanted.arch)
    if foreign is not None:
        yield end.first, foreign, wanted.foreign
    if ours is not None:
        for number, cases in wanted.within(end.first, end.last):
            for known, action in _apart(cases, ours):
                yield number, known, action


def _apart(cases: Cases, known: Known) -> Iterator[tuple[Known, int]]:
    undecided = [known]
    while undecided:
        calls = undecided.pop()
        match _decided(cases, calls):
            case int() as action:
                yield calls, action
            case sides:
                undecided += sides


def _decided(cases: Cases, known: Known) -> int | tuple[Known, Known]:
    """The action for all these calls, or two parts of them that differ in something which a case asks."""
    for case in cases:
        for rule in case.alternatives:
            for word, mask, value in comparisons(rule):
                equal, other = split(known, word, mask, value)
                if equal is None:
                    break
                if other is not None:
                    return equal, other
            else:
                return case.action
    raise AssertionError("the last case is not for all")


def comparisons(rule: Rule) -> Iterator[tuple[int, int, int]]:
    """Of 32-bit words, as a filter makes them: the word's place in struct seccomp_data, mask and value."""
    for match in rule:
        low = FIRST_ARGUMENT + 2 * match.index
        for word, mask, value in (low, match.mask, match.value), (low + 1, match.mask >> 32, match.value >> 32):
            if mask & WORD:
                yield word, mask & WORD, value & WORD


def _example(number: int, known: Known) -> Call | None:
    """One of those calls; None if there is none."""
    words = [known.get(word, NOTHING).example() for word in range(FIRST_ARGUMENT + 12)]
    arch, low, high = words[ARCH], words[FIRST_ARGUMENT::2], words[FIRST_ARGUMENT + 1 :: 2]
    args = [least | most << 32 for least, most in zip(low, high, strict=True) if least is not None and most is not None]
    if arch is None or len(args) < 6:
        return None
    return Call(number, arch, (args[0], args[1], args[2], args[3], args[4], args[5]))
