"""Classic BPF as seccomp runs it: decode, validate as the kernel does, execute. The referee of every compiled filter.

Never trusts the program: bounds of jumps, loads and constants are checked before the first instruction runs. Called by
`seccomp` to hold a filter against its profile's own meaning; source: linux/filter.h and kernel/seccomp.c.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sandboxd.profile.rules import WORD

MAX_INSTRUCTIONS = 4096
_DATA_BYTES = 64  # struct seccomp_data: nr, arch, instruction_pointer, args[6]

LD_W_ABS = 0x20
LD_IMM = 0x00
LDX_IMM = 0x01
LD_MEM = 0x60
LDX_MEM = 0x61
ST = 0x02
STX = 0x03
ALU_AND_K = 0x54
JMP_JA = 0x05
JMP_JEQ_K = 0x15
JMP_JGT_K = 0x25
JMP_JGE_K = 0x35
JMP_JSET_K = 0x45
RET_K = 0x06
RET_A = 0x16
JUMPS = (JMP_JEQ_K, JMP_JGT_K, JMP_JGE_K, JMP_JSET_K)
_KNOWN = {LD_W_ABS, LD_IMM, LDX_IMM, LD_MEM, LDX_MEM, ST, STX, ALU_AND_K, JMP_JA, *JUMPS, RET_K, RET_A}


class BadProgram(Exception):
    """The kernel would refuse this program, or it uses an instruction that no filter of ours has."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One `struct sock_filter`."""

    code: int
    jt: int
    jf: int
    k: int

    def encode(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.jt, self.jf, self.k)


@dataclass(frozen=True, slots=True)
class Call:
    """What the kernel shows a filter: `struct seccomp_data`."""

    number: int
    arch: int
    args: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)

    def words(self) -> tuple[int, ...]:
        """The sixteen 32-bit words of the struct on this machine's byte order."""
        packed = struct.pack("=IIQ6Q", self.number, self.arch, 0, *self.args)
        return struct.unpack("=16I", packed)


def decode(program: bytes) -> tuple[Instruction, ...]:
    """`BadProgram` where seccomp_check_filter or bpf_check_classic would say EINVAL."""
    if not program or len(program) % 8 or len(program) > MAX_INSTRUCTIONS * 8:
        raise BadProgram(f"{len(program)} bytes are no filter")
    instructions = tuple(Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program))
    for at, instruction in enumerate(instructions):
        _check(at, instruction, len(instructions))
    if instructions[-1].code not in (RET_K, RET_A):
        raise BadProgram("the last instruction is no return")
    return instructions


def _check(at: int, instruction: Instruction, length: int) -> None:
    if instruction.code not in _KNOWN:
        raise BadProgram(f"instruction {at}: code {instruction.code:#x} is not used by our filters")
    if instruction.code == LD_W_ABS and (instruction.k >= _DATA_BYTES or instruction.k % 4):
        raise BadProgram(f"instruction {at}: load at {instruction.k} is outside of seccomp_data")
    if instruction.code in (LD_MEM, LDX_MEM, ST, STX) and instruction.k >= 16:
        raise BadProgram(f"instruction {at}: scratch word {instruction.k} does not exist")
    furthest = at + 1
    if instruction.code == JMP_JA:
        furthest += instruction.k
    elif instruction.code in JUMPS:
        furthest += max(instruction.jt, instruction.jf)
    if furthest >= length and instruction.code not in (RET_K, RET_A):
        raise BadProgram(f"instruction {at}: jumps out of the program")


def run(program: Sequence[Instruction], call: Call) -> int:
    """The action this decoded program returns for that call. Always ends: jumps only go forward."""
    words = call.words()
    a = x = at = 0
    scratch = [0] * 16
    while True:
        step = program[at]
        code, k = step.code, step.k
        at += 1
        if code == LD_W_ABS:
            a = words[k >> 2]
        elif code in JUMPS:
            at += step.jt if taken(code, a, k) else step.jf
        elif code == RET_K:
            return k
        elif code == JMP_JA:
            at += k
        elif code == ALU_AND_K:
            a &= k
        elif code == LD_IMM:
            a = k
        elif code == LDX_IMM:
            x = k
        elif code == LD_MEM:
            a = scratch[k]
        elif code == LDX_MEM:
            x = scratch[k]
        elif code == ST:
            scratch[k] = a
        elif code == STX:
            scratch[k] = x
        else:
            return a & WORD


def taken(code: int, a: int, k: int) -> bool:
    if code == JMP_JEQ_K:
        return a == k
    if code == JMP_JGE_K:
        return a >= k
    if code == JMP_JGT_K:
        return a > k
    return bool(a & k)
