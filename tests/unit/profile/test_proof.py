import random
from collections.abc import Iterator
from itertools import product

import pytest

from sandboxd.profile import bpf, proof, seccomp
from sandboxd.profile.bpf import Call, Instruction
from sandboxd.profile.proof import Case, Wanted, always
from sandboxd.profile.rules import Match, Rule
from sandboxd.profile.schema import Allow, Seccomp
from sandboxd.profile.seccomp import ALLOW, KILL_PROCESS, Meaning, Memfd
from sandboxd.profile.walk import Unproven
from tests.unit.profile.profiles import shipped

X86 = 0xC000003E
FOREIGN = (0x40000003, 0x40000028, 0x800000B7, 0xC0000015, 0)  # i386, arm, big-endian aarch64, ppc64le, none
GARBAGE = 0xA5A5_5A5A_DEAD_BEEF
ALL_ONES = (1 << 64) - 1


def filter_of(*instructions: tuple[int, int, int, int]) -> tuple[Instruction, ...]:
    return bpf.decode(b"".join(Instruction(*fields).encode() for fields in instructions))


# Kills what is not X86; allows number 7 if the low word of its first argument is 3; answers 9 otherwise.
SMALL = (
    (bpf.LD_W_ABS, 0, 0, 4),
    (bpf.JMP_JEQ_K, 1, 0, X86),
    (bpf.RET_K, 0, 0, KILL_PROCESS),
    (bpf.LD_W_ABS, 0, 0, 0),
    (bpf.JMP_JEQ_K, 0, 3, 7),
    (bpf.LD_W_ABS, 0, 0, 16),
    (bpf.JMP_JEQ_K, 0, 1, 3),
    (bpf.RET_K, 0, 0, ALLOW),
    (bpf.RET_K, 0, 0, 9),
)


def wanted(number: int, *matches: Match, arch: int = X86, default: int = 9) -> Wanted:
    cases = (Case((matches,), ALLOW), *always(default))
    return Wanted(arch, KILL_PROCESS, ((0, always(default)), (number, cases), (number + 1, always(default))))


LOW_WORD = Match(0, 0xFFFFFFFF, 3)


def test_a_filter_that_means_what_is_wanted_has_no_difference() -> None:
    assert proof.difference(filter_of(*SMALL), wanted(7, LOW_WORD)) is None


@pytest.mark.parametrize(
    "other",
    [
        wanted(6, LOW_WORD),
        wanted(8, LOW_WORD),
        wanted(7),
        wanted(7, Match(0, 0xFFFFFFFF, 2)),
        wanted(7, Match(1, 0xFFFFFFFF, 3)),
        wanted(7, Match(0, ALL_ONES, 3)),
        wanted(7, Match(0, 0x7FFFFFFF, 3)),
        wanted(7, LOW_WORD, Match(5, 1 << 63, 0)),
        wanted(7, LOW_WORD, arch=X86 ^ 1),
        wanted(7, LOW_WORD, default=8),
    ],
)
def test_whatever_else_is_wanted_a_call_shows_the_difference(other: Wanted) -> None:
    some = filter_of(*SMALL)
    call = proof.difference(some, other)
    assert call is not None
    assert bpf.run(some, call) != other.action(call)


def test_one_number_of_all_is_found() -> None:
    hole = (*SMALL[:4], (bpf.JMP_JEQ_K, 3, 0, 0xDEADBEE), *SMALL[4:])
    assert proof.difference(filter_of(*hole), wanted(7, LOW_WORD)) == Call(0xDEADBEE, X86, (0xA5A5_5A5A_A5A5_5A5A,) * 6)


def test_one_value_of_an_argument_is_found_although_no_rule_names_it() -> None:
    hole = (*SMALL[:6], (bpf.JMP_JEQ_K, 1, 0, 0x12345678), *SMALL[6:])
    call = proof.difference(filter_of(*hole), wanted(7, LOW_WORD))
    assert call is not None
    assert call.args[0] & 0xFFFFFFFF == 0x12345678


def test_what_cannot_be_followed_is_not_called_right() -> None:
    computed = (*SMALL[:6], (bpf.JMP_JGT_K, 1, 0, 3), *SMALL[6:])
    with pytest.raises(Unproven):
        proof.difference(filter_of(*computed), wanted(7, LOW_WORD))


def test_rules_that_overlap_too_much_are_refused_and_do_not_take_forever() -> None:
    """Each of twenty bits of an argument asked for itself, and then nothing made of it."""
    asked = ((bpf.JMP_JSET_K, 0, 0, 1 << bit) for bit in range(20))
    slow = (*SMALL[:3], (bpf.LD_W_ABS, 0, 0, 16), *asked, *SMALL[3:])
    with pytest.raises(Unproven, match="more than"):
        proof.difference(filter_of(*slow), wanted(7, LOW_WORD))


def calls(meaning: Meaning, machine: str, arch: int) -> Iterator[Call]:
    """Each number with some arguments, and each alternative of a rule satisfied and each of its bits wrong in turn."""
    for number in (*range(600), *(1 << 30 | number for number in range(600)), 1 << 31, 0xFFFFFFFE, 0xFFFFFFFF):
        for argument in (0, GARBAGE, ALL_ONES):
            yield Call(number, arch, (argument,) * 6)
    for foreign, number in product(FOREIGN, (0, 1, 59, 102, 359, 599, 1 << 30, 0xFFFFFFFF)):
        yield Call(number, foreign)
    for number, name in seccomp.known_numbers(machine).items():
        for rule in meaning.allowed.get(name, ()):
            yield Call(number, arch, _arguments(rule, 0))
            yield Call(number, arch, _arguments(rule, GARBAGE))
            for match, bit in product(rule, range(64)):
                if match.mask >> bit & 1:
                    flipped = Match(match.index, match.mask, match.value ^ 1 << bit)
                    yield Call(number, arch, _arguments((*(o for o in rule if o is not match), flipped), GARBAGE))


def _arguments(rule: Rule, background: int) -> tuple[int, int, int, int, int, int]:
    args = [background] * 6
    for match in rule:
        args[match.index] = background & ~match.mask & ALL_ONES | match.value
    return (args[0], args[1], args[2], args[3], args[4], args[5])


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", X86), ("aarch64", 0xC00000B7)])
def test_what_is_proved_holds_when_it_is_run(machine: str, arch: int) -> None:
    """The proof against the interpreter, which knows nothing of walks, and the meaning in words of its own."""
    meaning = seccomp.meaning(shipped().get("default").spec.seccomp, Memfd.SEAL)
    program = seccomp.assemble(meaning, machine)
    assert seccomp.mismatch(program, meaning, machine) is None
    decoded, names = bpf.decode(program), seccomp.known_numbers(machine)
    for call in calls(meaning, machine, arch):
        if call.arch != arch or (machine == "x86_64" and 1 << 30 <= call.number < 1 << 31):
            expected = KILL_PROCESS
        else:
            expected = meaning.action(names.get(call.number), call.args)
        assert bpf.run(decoded, call) == expected, call


def test_no_change_that_running_shows_escapes_the_proof() -> None:
    """One instruction of a filter changed at random. Control: most changes show when it is run."""
    luck = random.Random(1)
    names = ("read", "socketpair", "clone", "prlimit64", "setrlimit", "sendto", "personality")
    meaning = seccomp.meaning(Seccomp(allow=(Allow(names=names, why="a test of it"),)), Memfd.SYSCTL)
    program = seccomp.assemble(meaning, "x86_64")
    sampled = list(calls(meaning, "x86_64", X86))
    right = [bpf.run(bpf.decode(program), call) for call in sampled]
    shown = 0
    for _ in range(60):
        mutant = _changed(program, luck)
        if any(bpf.run(mutant, call) != answer for call, answer in zip(sampled, right, strict=True)):
            shown += 1
            assert seccomp.mismatch(b"".join(step.encode() for step in mutant), meaning, "x86_64") is not None
    assert shown > 30


def _changed(program: bytes, luck: random.Random) -> tuple[Instruction, ...]:
    while True:
        steps = list(bpf.decode(program))
        at = luck.randrange(len(steps))
        step = steps[at]
        if step.code == bpf.RET_K:
            steps[at] = Instruction(step.code, 0, 0, luck.choice((ALLOW, KILL_PROCESS, 0x50001, 0x50026)))
        elif step.code in bpf.JUMPS:
            steps[at] = luck.choice(
                (
                    Instruction(step.code, step.jf, step.jt, step.k),
                    Instruction(step.code, step.jt, step.jf, step.k ^ 1 << luck.randrange(32)),
                    Instruction(step.code, step.jt, step.jt, step.k),
                )
            )
        if steps[at] != step:
            return tuple(steps)
