import random

import pytest

from sandboxd.profile import bpf, walk
from sandboxd.profile.bpf import Call, Instruction
from sandboxd.profile.walk import End, Unproven

LOAD_NUMBER = (bpf.LD_W_ABS, 0, 0, 0)
LOAD_ARCH = (bpf.LD_W_ABS, 0, 0, 4)
LOAD_LOW, LOAD_HIGH = (bpf.LD_W_ABS, 0, 0, 16), (bpf.LD_W_ABS, 0, 0, 20)  # of the first argument


def program(*instructions: tuple[int, int, int, int]) -> tuple[Instruction, ...]:
    return bpf.decode(b"".join(Instruction(*fields).encode() for fields in instructions))


def returns(*values: int) -> tuple[tuple[int, int, int, int], ...]:
    return tuple((bpf.RET_K, 0, 0, value) for value in values)


def _comes_to(end: End, call: Call) -> bool:
    words = call.words()
    return end.first <= call.number <= end.last and all(
        words[word] & bits.mask == bits.value and all(words[word] & mask != value for mask, value in bits.excluded)
        for word, bits in end.known.items()
    )


@pytest.mark.parametrize(
    ("code", "taken"),
    [(bpf.JMP_JEQ_K, [(7, 7)]), (bpf.JMP_JGE_K, [(7, 0xFFFFFFFF)]), (bpf.JMP_JGT_K, [(8, 0xFFFFFFFF)])],
)
def test_numbers_part_where_the_program_parts_them(code: int, taken: list[tuple[int, int]]) -> None:
    found = list(walk.ends(program(LOAD_NUMBER, (code, 0, 1, 7), *returns(1, 2))))
    assert [(end.first, end.last) for end in found if end.action == 1] == taken
    assert sum(end.last - end.first + 1 for end in found) == 1 << 32


def test_a_branch_that_what_is_known_rules_out_is_not_walked() -> None:
    asked_twice = program(LOAD_LOW, (bpf.JMP_JEQ_K, 0, 2, 5), (bpf.JMP_JEQ_K, 0, 1, 5), *returns(1, 2))
    assert sorted(end.action for end in walk.ends(asked_twice)) == [1, 2]


@pytest.mark.parametrize(
    "bad",
    [
        (LOAD_NUMBER, (bpf.JMP_JSET_K, 0, 1, 7), *returns(1, 2)),
        (LOAD_NUMBER, (bpf.ALU_AND_K, 0, 0, 7), (bpf.JMP_JEQ_K, 0, 1, 7), *returns(1, 2)),
        (LOAD_LOW, (bpf.JMP_JGT_K, 0, 1, 7), *returns(1, 2)),
        ((bpf.LD_W_ABS, 0, 0, 8), (bpf.JMP_JEQ_K, 0, 1, 7), *returns(1, 2)),
        (LOAD_LOW, (bpf.RET_A, 0, 0, 0)),
    ],
)
def test_what_no_filter_of_ours_does_is_not_followed(bad: tuple[tuple[int, int, int, int], ...]) -> None:
    with pytest.raises(Unproven):
        list(walk.ends(program(*bad)))


def _random_program(luck: random.Random) -> tuple[Instruction, ...]:
    """Loads, masks, scratch memory and jumps, at random, that end in returns of different actions."""
    length = luck.randrange(4, 30)
    body: list[tuple[int, int, int, int]] = []
    for at in range(length):
        left = length - at - 1
        match luck.randrange(8):
            case 0 | 1:
                body.append(luck.choice((LOAD_LOW, LOAD_HIGH, LOAD_ARCH)))
            case 2:
                body.append((bpf.ALU_AND_K, 0, 0, luck.randrange(16)))
            case 3:
                body.append((luck.choice((bpf.ST, bpf.LD_MEM, bpf.STX, bpf.LDX_MEM)), 0, 0, luck.randrange(2)))
            case 4:
                body.append((luck.choice((bpf.LD_IMM, bpf.LDX_IMM)), 0, 0, luck.randrange(8)))
            case 5:
                body.append((bpf.JMP_JA, 0, 0, luck.randrange(left + 1)))
            case _:
                code = luck.choice((bpf.JMP_JEQ_K, bpf.JMP_JSET_K))
                body.append((code, luck.randrange(left + 1), luck.randrange(left + 1), luck.randrange(8)))
    return program(*body, *returns(luck.randrange(4)))


def test_every_call_comes_to_one_end_and_gets_its_action() -> None:
    """Random programs, judged by the interpreter on calls with every small value."""
    luck = random.Random(1)
    seen = set()
    for _ in range(400):
        some = _random_program(luck)
        found = list(walk.ends(some))
        for low in range(8):
            for high in (0, 3):
                call = Call(1, 2, (low | high << 32, 0, 0, 0, 0, 0))
                (end,) = (end for end in found if _comes_to(end, call))
                assert end.action == bpf.run(some, call)
        seen.add(len(found))
    assert max(seen) > 5
