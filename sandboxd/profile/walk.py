"""Walks every path of a filter at once: which calls come to which end, whatever their arguments.

Knows of the call only what the branches on the way say. Never guesses: what it does not follow is `Unproven`. Called by
`proof`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sandboxd.profile import bpf
from sandboxd.profile.bits import NOTHING, Bits
from sandboxd.profile.bpf import Instruction
from sandboxd.profile.rules import WORD

NUMBER, ARCH, FIRST_ARGUMENT = 0, 1, 4  # words of struct seccomp_data; an argument is two, the low one first
_INSTRUCTION_POINTER = (2, 3)
_CONSTANT = -1

Known = Mapping[int, Bits]  # by the word
_Value = tuple[int, int]  # a word and the mask that was laid on it; or _CONSTANT and which one
_Branch = tuple[bool, int, int, Known]  # whether the jump is taken, and with which calls


class Unproven(Exception):
    """The program computes something that no filter of ours has."""


@dataclass(frozen=True, slots=True)
class End:
    """All calls with a number within first…last for which `known` holds get this action."""

    first: int
    last: int
    known: Known
    action: int


@dataclass(frozen=True, slots=True)
class _Path:
    """A place in the program, what is in the machine there, and which calls come by."""

    at: int
    a: _Value
    x: _Value
    scratch: Mapping[int, _Value]
    first: int
    last: int
    known: Known


def ends(program: Sequence[Instruction]) -> Iterator[End]:
    """Every end of this decoded program. Together they have each call once."""
    zero = (_CONSTANT, 0)
    paths = [_Path(0, zero, zero, {}, 0, WORD, {})]
    while paths:
        yield _to_the_end(program, paths.pop(), paths)


def _to_the_end(program: Sequence[Instruction], path: _Path, others: list[_Path]) -> End:
    """Where a branch depends on the call, goes on with one side and lays the rest by."""
    at, a, x, scratch, first, last, known = (
        path.at, path.a, path.x, path.scratch, path.first, path.last, path.known
    )  # fmt: skip
    while True:
        step = program[at]
        code, k = step.code, step.k
        at += 1
        if code in bpf.JUMPS:
            branches = list(_branches(step, a, first, last, known))
            for taken, low, high, narrower in branches[1:]:
                others.append(_Path(at + (step.jt if taken else step.jf), a, x, scratch, low, high, narrower))
            taken, first, last, known = branches[0]
            at += step.jt if taken else step.jf
        elif code == bpf.LD_W_ABS:
            a = (k >> 2, WORD)
            if a[0] in _INSTRUCTION_POINTER:
                raise Unproven(f"instruction {at - 1} looks where the call comes from")
        elif code == bpf.ALU_AND_K:
            a = (a[0], a[1] & k)
        elif code == bpf.RET_K:
            return End(first, last, known, k)
        elif code == bpf.JMP_JA:
            at += k
        elif code == bpf.LD_IMM:
            a = (_CONSTANT, k)
        elif code == bpf.LDX_IMM:
            x = (_CONSTANT, k)
        elif code == bpf.LD_MEM:
            a = scratch.get(k, (_CONSTANT, 0))
        elif code == bpf.LDX_MEM:
            x = scratch.get(k, (_CONSTANT, 0))
        elif code == bpf.ST:
            scratch = {**scratch, k: a}
        elif code == bpf.STX:
            scratch = {**scratch, k: x}
        elif a[0] == _CONSTANT:
            return End(first, last, known, a[1])
        else:
            raise Unproven(f"instruction {at - 1} returns what the call says")


def _branches(step: Instruction, a: _Value, first: int, last: int, known: Known) -> Iterator[_Branch]:
    """The sides of a jump that some of these calls take; never none."""
    word, value = a
    if word == _CONSTANT:
        yield bpf.taken(step.code, value, step.k), first, last, known
    elif word == NUMBER and value == WORD and step.code != bpf.JMP_JSET_K:
        for taken, low, high in _by_number(step, first, last):
            if low <= high:
                yield taken, low, high, known
    elif step.code in (bpf.JMP_JEQ_K, bpf.JMP_JSET_K) and word != NUMBER:
        yield from ((taken, first, last, narrower) for taken, narrower in _by_bits(step, a, known))
    else:
        raise Unproven(f"{step} compares word {word} & {value:#x} of the call")


def _by_number(step: Instruction, first: int, last: int) -> Iterator[tuple[bool, int, int]]:
    if step.code == bpf.JMP_JEQ_K:
        yield True, max(first, step.k), min(last, step.k)
        yield False, first, min(last, step.k - 1)
        yield False, max(first, step.k + 1), last
    else:
        lowest = step.k if step.code == bpf.JMP_JGE_K else step.k + 1
        yield False, first, min(last, lowest - 1)
        yield True, max(first, lowest), last


def _by_bits(step: Instruction, a: _Value, known: Known) -> Iterator[tuple[bool, Known]]:
    word, mask = a
    if step.code == bpf.JMP_JSET_K:
        none, some = split(known, word, mask & step.k, 0)
        sides = ((False, none), (True, some))
    elif step.k & ~mask:
        sides = ((False, known), (True, None))
    else:
        equal, other = split(known, word, mask, step.k)
        sides = ((True, equal), (False, other))
    for taken, narrower in sides:
        if narrower is not None:
            yield taken, narrower


def split(known: Known, word: int, mask: int, value: int) -> tuple[Known | None, Known | None]:
    """Of the calls that are known so far, those whose `word & mask == value`, and the others. See `Bits.split`."""
    before = known.get(word, NOTHING)
    equal, other = before.split(mask, value)
    return _with(known, word, before, equal), _with(known, word, before, other)


def _with(known: Known, word: int, before: Bits, now: Bits | None) -> Known | None:
    if now is None or now is before:
        return None if now is None else known
    return {**known, word: now}
