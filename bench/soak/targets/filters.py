"""Random rule sets through libseccomp: the compiled filter must mean what the rules say. And random bytes as a filter.

Judged by the interpreter on random calls near the rules' own values, beside the checks that `compiled` makes itself.
"""

import errno
import os
from functools import cache

from bench.soak.target import Broken, Draw, Shape, Target
from sandboxd.profile import bpf, seccomp
from sandboxd.profile.rules import ANY, WORD, Match, Rule, both
from sandboxd.profile.seccomp import Meaning

ERRNOS = (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EINVAL, errno.ENOTSUP)
CALLS = 64
MOST_RULES = 8  # system calls; libseccomp takes most of the time


@cache
def _names() -> tuple[str, ...]:
    return tuple(seccomp.known_numbers().values())


def run(data: bytes) -> object:
    if data[:1] == b"\0":
        return _as_filter(data[1:])
    return _as_rules(Draw(data[1:]))


def _as_filter(program: bytes) -> object:
    decoded = bpf.decode(program)
    for number in (0, 59, 1 << 30, WORD):
        if not 0 <= bpf.run(decoded, bpf.Call(number, 0xC000003E, (number,) * 6)) <= WORD:
            raise Broken("an action that is no word")
    return decoded[len(decoded) // 2].k.to_bytes(4, "little").decode("latin-1")


def _as_rules(draw: Draw) -> object:
    allowed: dict[str, tuple[Rule, ...]] = {}
    errnos: dict[str, int] = {}
    while draw.left and len(allowed) + len(errnos) < MOST_RULES:
        name = _names()[draw.below(len(_names()))]
        if draw.below(4) == 0:
            errnos[name] = ERRNOS[draw.below(len(ERRNOS))]
            continue
        rules: tuple[Rule, ...] = (ANY,)
        for _ in range(draw.below(3)):
            rules = both(rules, tuple(_rule(draw) for _ in range(1 + draw.below(3))))
        if rules:
            allowed[name] = rules
    meaning = Meaning(allowed, errnos)
    program = bpf.decode(seccomp.assemble(meaning))
    numbers = {name: number for number, name in seccomp.known_numbers().items()}
    for name in (*allowed, *errnos, _names()[draw.below(len(_names()))]):
        for args in _arguments(allowed.get(name, ())):
            got = bpf.run(program, bpf.Call(numbers[name], _arch(), args))
            if got != (expected := meaning.action(name, args)):
                raise Broken(f"{name}{args} gives {got:#x}, not {expected:#x}, by {allowed.get(name)}")
    return None


def _rule(draw: Draw) -> Rule:
    mask = (WORD, 0xFF, 0x80000000, 0x3, draw.number(4))[draw.below(5)] or WORD
    return (Match(draw.below(6), mask, draw.number(4) & mask),)


def _arguments(alternatives: tuple[Rule, ...]) -> list[tuple[int, int, int, int, int, int]]:
    found = [(0, 0, 0, 0, 0, 0), (WORD,) * 6]
    for rule in alternatives[:CALLS]:
        for background in (0, 0xDEADBEEF_A5A5A5A5):
            for wrong in (-1, *range(0, 32, 5)):
                args = [background] * 6
                for match in rule:
                    flipped = match.value ^ (1 << wrong if wrong >= 0 else 0)
                    args[match.index] = background & ~match.mask & (1 << 64) - 1 | flipped & match.mask
                found.append((args[0], args[1], args[2], args[3], args[4], args[5]))
    return found


def _arch() -> int:
    return {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[os.uname().machine]


def target() -> Target:
    steps = (
        bpf.Instruction(bpf.LD_W_ABS, 0, 0, 0),
        bpf.Instruction(bpf.JMP_JEQ_K, 1, 0, 59),
        bpf.Instruction(bpf.JMP_JEQ_K, 0, 1, int.from_bytes(b"text", "little")),
        bpf.Instruction(bpf.RET_K, 0, 0, seccomp.ALLOW),
        bpf.Instruction(bpf.RET_K, 0, 0, seccomp.KILL_PROCESS),
    )
    small = b"".join(step.encode() for step in steps)
    seeds = (b"\0" + small, b"\1" + bytes(range(20)), b"\1" + bytes(range(255, 100, -1)))
    words = tuple(code.to_bytes(2, "little") for code in sorted(bpf._KNOWN))
    modules = ("sandboxd.profile.bpf", "sandboxd.profile.rules")
    return Target("filters", modules, run, (bpf.BadProgram,), seeds, words, Shape.BYTES, 512)
