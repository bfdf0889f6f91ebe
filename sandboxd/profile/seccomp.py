"""A profile's system calls → a classic BPF filter, and proof that the filter means what the profile says.

Never hands out a filter that `proof` has not held against the profile's own meaning, for every call there can be.
Compiles with libseccomp through pyseccomp and never loads anything. Called by `load` (to refuse a profile early) and
`compile`.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from itertools import pairwise

import pyseccomp

from sandboxd.errors import ProfileInvalid
from sandboxd.profile import bpf, floor, proof
from sandboxd.profile.bpf import Instruction
from sandboxd.profile.proof import Case, Cases, Wanted, always
from sandboxd.profile.rules import ANY, WORD, Match, Rule, both, one_of
from sandboxd.profile.schema import Allow, Seccomp
from sandboxd.profile.walk import Unproven

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
_ERRNO = 0x00050000
KILL_PROCESS = 0x80000000
_X32_BIT = 0x40000000
_FIRST_NEGATIVE = 0x80000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_NEWEST = 450  # of Linux 5.17, which every libseccomp since 2.5.4 knows; later calls are unknown numbers to all of us


class Memfd(StrEnum):
    """What keeps anonymous memory files from being executed: the sandbox's sysctl, the filter, or no such files."""

    SYSCTL = "sysctl"
    SEAL = "seal"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a filter must answer, in the profile's terms. A call in neither table answers EPERM.

    Init answers what would be let through of a call in `asked`, and what would be refused of one in `reported`.
    """

    allowed: dict[str, tuple[Rule, ...]]
    errnos: dict[str, int]
    asked: frozenset[str] = frozenset()
    reported: frozenset[str] = frozenset()

    def cases(self, name: str | None) -> Cases:
        """The seccomp actions for a call by its name; None is a number that no kernel we know has."""
        if name is None:
            return always(_errno(errno.ENOSYS))
        refused = NOTIFY if name in self.reported else _errno(self.errnos.get(name, errno.EPERM))
        if name in self.errnos or name not in self.allowed:
            return always(refused)
        pretended = Case(floor.ASKS.get(name, ()), refused), Case(floor.PRETENDED.get(name, ()), _errno(0))
        let = NOTIFY if name in self.asked else ALLOW
        return Case(self.allowed[name], let), *pretended, *always(refused)

    def action(self, name: str | None, args: tuple[int, ...]) -> int:
        return proof.answer(self.cases(name), args)


def _errno(number: int) -> int:
    return _ERRNO | number


@dataclass(frozen=True, slots=True)
class Notified:
    """Names of calls, see `Meaning`; none is in both."""

    asked: frozenset[str] = frozenset()
    reported: frozenset[str] = frozenset()


NOTHING_NOTIFIED = Notified()


def meaning(spec: Seccomp, memfd: Memfd, notified: Notified = NOTHING_NOTIFIED) -> Meaning:
    """The profile's groups with the floor's argument rules applied; `ProfileInvalid` if they contradict each other."""
    allowed: dict[str, tuple[Rule, ...]] = {}
    errnos = dict.fromkeys(floor.ALWAYS_ENOSYS, errno.ENOSYS)
    for group in spec.allow:
        own = _alternatives(group)
        for name in group.names:
            rules = both(own, floor.ARGUMENTS.get(name, (ANY,)))
            if not rules:
                raise ProfileInvalid(f"seccomp.allow: the arguments of {name!r} exclude what the floor allows")
            allowed[name] = rules
    for denied in spec.deny:
        for name in denied.names:
            errnos[name] = getattr(errno, denied.errno)
    if memfd is Memfd.DENY:
        allowed.pop("memfd_create", None)
    elif memfd is Memfd.SEAL and "memfd_create" in allowed:
        allowed["memfd_create"] = both(allowed["memfd_create"], floor.MEMFD_SEALED)
    return Meaning(allowed, errnos, notified.asked, notified.reported)


def never_refused(spec: Seccomp) -> frozenset[str]:
    """The calls that are let through whatever their arguments."""
    return frozenset(
        name for group in spec.allow if not group.args for name in group.names if name not in floor.ARGUMENTS
    )


def _alternatives(group: Allow) -> tuple[Rule, ...]:
    rules: tuple[Rule, ...] = (ANY,)
    for argument in group.args:
        rules = both(rules, one_of(argument.index, argument.one_of, argument.mask))
    return rules


@cache
def known_numbers(machine: str = "") -> dict[int, str]:
    """Every call number up to the newest that we judge on this architecture, with its name."""
    arch = _token(machine)
    return {number: name.decode() for number in range(_NEWEST + 1) if (name := _resolved(arch, number)) is not None}


def _resolved(arch: int, number: int) -> bytes | None:
    try:
        name: bytes = pyseccomp.resolve_syscall(arch, number)
    except ValueError:
        return None
    return name


@cache
def is_syscall(name: str) -> bool:
    """Whether any architecture has a call of that name (it may be missing on this one)."""
    number: int = pyseccomp.resolve_syscall(_token(""), name)
    return number != -1 and number <= _NEWEST


def _token(machine: str) -> int:
    machine = machine or os.uname().machine
    if machine not in _ARCHITECTURES:
        raise ProfileInvalid(f"the architecture {machine!r} is not supported; known are {sorted(_ARCHITECTURES)}")
    return _ARCHITECTURES[machine]


_verified: dict[tuple[str, bytes, Notified], bytes] = {}


def compiled(
    spec: Seccomp, memfd: Memfd = Memfd.SYSCTL, machine: str = "", notified: Notified = NOTHING_NOTIFIED
) -> bytes:
    """`struct sock_filter[]`, verified; the same spec is compiled once per process."""
    key = (f"{machine}:{memfd}", spec.model_dump_json().encode(), notified)
    if key not in _verified:
        wanted = meaning(spec, memfd, notified)
        program = assemble(wanted, machine)
        if (problem := mismatch(program, wanted, machine)) is not None:
            raise ProfileInvalid(f"seccomp: the compiled filter is wrong: {problem}; refuse it and report this")
        _verified[key] = program
    return _verified[key]


def assemble(wanted: Meaning, machine: str = "") -> bytes:
    """Prologue (architecture, unknown numbers) and libseccomp's binary tree for the rest. Not verified."""
    arch = _token(machine)
    numbers = {name: number for number, name in known_numbers(machine).items()}
    compiler = pyseccomp.SyscallFilter(_errno(errno.EPERM))
    if not compiler.exist_arch(arch):
        compiler.add_arch(arch)
        compiler.remove_arch(pyseccomp.system_arch())
    compiler.set_attr(pyseccomp.Attr.ACT_BADARCH, KILL_PROCESS)
    compiler.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # binary tree: installs in half the time of a linear filter
    for name, number in wanted.errnos.items():
        if name in numbers and number != errno.EPERM and name not in wanted.reported:
            compiler.add_rule_exactly(_errno(number), name)
    by_hand = b""
    for name, alternatives in wanted.allowed.items():
        if name not in numbers or name in wanted.errnos:
            continue
        if name in wanted.reported:
            by_hand += _reported_otherwise(numbers[name], alternatives)
            continue
        let = pyseccomp.NOTIFY if name in wanted.asked else pyseccomp.ALLOW
        for rule in alternatives:
            compiler.add_rule_exactly(let, name, *(_comparison(match) for match in rule))
    for name in sorted(wanted.reported - wanted.allowed.keys()):
        if name in numbers:
            compiler.add_rule_exactly(pyseccomp.NOTIFY, name)
    pretended = _pretended_core_limit(numbers["prlimit64"]) if "prlimit64" in wanted.allowed else b""
    return _prologue(arch, sorted(numbers.values())) + pretended + by_hand + _exported(compiler)


def _comparison(match: Match) -> pyseccomp.Arg:
    return pyseccomp.Arg(match.index, pyseccomp.MASKED_EQ, match.mask, match.value)


def _exported(compiler: pyseccomp.SyscallFilter) -> bytes:
    with os.fdopen(os.memfd_create("seccomp", os.MFD_CLOEXEC), "w+b") as file:
        compiler.export_bpf(file)
        file.seek(0)
        return file.read()


def _prologue(arch: int, known: list[int]) -> bytes:
    """libseccomp has one default action; numbers nobody knows need ENOSYS where known ones need EPERM."""
    ranges = list(_unknown_ranges(arch, known))
    code = [
        Instruction(bpf.LD_W_ABS, 0, 0, 4),
        Instruction(bpf.JMP_JEQ_K, 1, 0, arch),
        Instruction(bpf.RET_K, 0, 0, KILL_PROCESS),
        Instruction(bpf.LD_W_ABS, 0, 0, 0),
        Instruction(bpf.JMP_JGE_K, 0, 3 * len(ranges), ranges[0][0]),
    ]
    for first, last, action in ranges:
        code += [
            Instruction(bpf.JMP_JGE_K, 0, 2, first),
            Instruction(bpf.JMP_JGT_K, 1, 0, last),
            Instruction(bpf.RET_K, 0, 0, action),
        ]
    return b"".join(instruction.encode() for instruction in code)


def _pretended_core_limit(number: int) -> bytes:
    """`floor.PRETENDED` by hand: libseccomp cannot say that a pointer is not null."""
    pid, resource, limit = 16, 24, 32  # offsets of the first three arguments in struct seccomp_data, low word first
    code = (
        Instruction(bpf.JMP_JEQ_K, 0, 9, number),  # the accumulator holds the call's number
        Instruction(bpf.LD_W_ABS, 0, 0, resource),
        Instruction(bpf.JMP_JEQ_K, 0, 7, floor.RLIMIT_CORE),
        Instruction(bpf.LD_W_ABS, 0, 0, pid),
        Instruction(bpf.JMP_JEQ_K, 0, 5, 0),
        Instruction(bpf.LD_W_ABS, 0, 0, limit),
        Instruction(bpf.JMP_JEQ_K, 0, 2, 0),
        Instruction(bpf.LD_W_ABS, 0, 0, limit + 4),
        Instruction(bpf.JMP_JEQ_K, 1, 0, 0),
        Instruction(bpf.RET_K, 0, 0, _errno(0)),
    )
    return b"".join(instruction.encode() for instruction in code)


def _reported_otherwise(number: int, alternatives: tuple[Rule, ...]) -> bytes:
    """By hand as well: libseccomp has one answer for a call with other arguments than its rules', and that is EPERM."""
    code: list[Instruction] = []
    for rule in alternatives:
        steps: list[Instruction] = []
        for word, mask, value in proof.comparisons(rule):
            steps.append(Instruction(bpf.LD_W_ABS, 0, 0, 4 * word))
            if mask != WORD:
                steps.append(Instruction(bpf.ALU_AND_K, 0, 0, mask))
            steps.append(Instruction(bpf.JMP_JEQ_K, 0, 0, value))
        steps.append(Instruction(bpf.RET_K, 0, 0, ALLOW))
        code += (
            replace(step, jf=len(steps) - 1 - at) if step.code == bpf.JMP_JEQ_K else step
            for at, step in enumerate(steps)
        )
    code.append(Instruction(bpf.RET_K, 0, 0, NOTIFY))
    head = (
        Instruction(bpf.LD_W_ABS, 0, 0, 0),
        Instruction(bpf.JMP_JEQ_K, 1, 0, number),
        Instruction(bpf.JMP_JA, 0, 0, len(code)),
    )
    return b"".join(instruction.encode() for instruction in (*head, *code))


def _unknown_ranges(arch: int, known: list[int]) -> Iterator[tuple[int, int, int]]:
    enosys = _errno(errno.ENOSYS)
    for lower, upper in pairwise(known):
        if upper - lower > 1:
            yield lower + 1, upper - 1, enosys
    if arch == _ARCHITECTURES["x86_64"]:
        yield known[-1] + 1, _X32_BIT - 1, enosys
        yield _X32_BIT, _FIRST_NEGATIVE - 1, KILL_PROCESS
        yield _FIRST_NEGATIVE, WORD, enosys
    else:
        yield known[-1] + 1, WORD, enosys


def mismatch(program: bytes, wanted: Meaning, machine: str = "") -> str | None:
    """A call that this filter answers otherwise than `wanted` says, in words; None if there is none."""
    arch, numbers = _token(machine), known_numbers(machine)
    answers = Wanted(arch, KILL_PROCESS, tuple(_answers(wanted, arch, numbers)))
    try:
        decoded = bpf.decode(program)
        call = proof.difference(decoded, answers)
    except (bpf.BadProgram, Unproven) as error:
        return str(error)
    if call is None:
        return None
    name = numbers.get(call.number, "?")
    args = ", ".join(hex(value) for value in call.args)
    got, expected = bpf.run(decoded, call), answers.action(call)
    return f"{name} ({call.number:#x}, arch {call.arch:#x}) with ({args}) gives {got:#x}, not {expected:#x}"


def _answers(wanted: Meaning, arch: int, known: dict[int, str]) -> Iterator[tuple[int, Cases]]:
    unknown = wanted.cases(None)
    for number in range(max(known) + 2):
        yield number, wanted.cases(known.get(number))
    if arch == _ARCHITECTURES["x86_64"]:
        yield _X32_BIT, always(KILL_PROCESS)
        yield _FIRST_NEGATIVE, unknown
