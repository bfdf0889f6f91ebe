import pytest

from sandboxd.profile import bpf
from sandboxd.profile.bpf import BadProgram, Call, Instruction

ALLOW = 0x7FFF0000


def program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(Instruction(*fields).encode() for fields in instructions)


def run(*instructions: tuple[int, int, int, int], call: Call = Call(0, 0)) -> int:  # noqa: B008
    return bpf.run(bpf.decode(program(*instructions)), call)


def test_the_call_number_the_architecture_and_both_halves_of_an_argument_can_be_loaded() -> None:
    call = Call(39, 0xC000003E, (0, 0x1111_2222_3333_4444, 0, 0, 0, 0))
    loaded = [run((bpf.LD_W_ABS, 0, 0, offset), (bpf.RET_A, 0, 0, 0), call=call) for offset in (0, 4, 24, 28)]
    assert loaded == [39, 0xC000003E, 0x33334444, 0x11112222]


@pytest.mark.parametrize(
    ("code", "k", "taken"),
    [
        (bpf.JMP_JEQ_K, 7, True),
        (bpf.JMP_JEQ_K, 8, False),
        (bpf.JMP_JGE_K, 7, True),
        (bpf.JMP_JGT_K, 7, False),
        (bpf.JMP_JGT_K, 6, True),
        (bpf.JMP_JSET_K, 4, True),
        (bpf.JMP_JSET_K, 8, False),
    ],
)
def test_jumps_are_taken_as_the_kernel_takes_them(code: int, k: int, taken: bool) -> None:
    result = run((bpf.LD_W_ABS, 0, 0, 0), (code, 0, 1, k), (bpf.RET_K, 0, 0, 1), (bpf.RET_K, 0, 0, 2), call=Call(7, 0))
    assert result == (1 if taken else 2)


def test_masks_scratch_memory_and_long_jumps_work() -> None:
    assert (
        run(
            (bpf.LD_W_ABS, 0, 0, 0),
            (bpf.ALU_AND_K, 0, 0, 0xF0),
            (bpf.ST, 0, 0, 3),
            (bpf.LD_IMM, 0, 0, 9),
            (bpf.JMP_JA, 0, 0, 1),
            (bpf.RET_K, 0, 0, 1),
            (bpf.LD_MEM, 0, 0, 3),
            (bpf.RET_A, 0, 0, 0),
            call=Call(0xAB, 0),
        )
        == 0xA0
    )
    assert run((bpf.LDX_IMM, 0, 0, 5), (bpf.STX, 0, 0, 0), (bpf.LDX_MEM, 0, 0, 0), (bpf.RET_K, 0, 0, 3)) == 3


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"1234567",
        program((bpf.LD_W_ABS, 0, 0, 0)),
        program((bpf.LD_W_ABS, 0, 0, 64), (bpf.RET_K, 0, 0, 0)),
        program((bpf.LD_W_ABS, 0, 0, 2), (bpf.RET_K, 0, 0, 0)),
        program((bpf.JMP_JEQ_K, 1, 0, 0), (bpf.RET_K, 0, 0, 0)),
        program((bpf.JMP_JA, 0, 0, 0xFFFFFFFF), (bpf.RET_K, 0, 0, 0)),
        program((bpf.ST, 0, 0, 16), (bpf.RET_K, 0, 0, 0)),
        program((0xFFFF, 0, 0, 0), (bpf.RET_K, 0, 0, 0)),
        program((bpf.RET_K, 0, 0, 0)) * 4097,
    ],
)
def test_what_the_kernel_would_refuse_is_refused(bad: bytes) -> None:
    with pytest.raises(BadProgram):
        bpf.decode(bad)
