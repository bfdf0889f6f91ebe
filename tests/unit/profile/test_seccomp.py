import errno

import pytest

from sandboxd.errors import ProfileInvalid
from sandboxd.profile import bpf, seccomp
from sandboxd.profile.bpf import Call, Instruction
from sandboxd.profile.rules import Match
from sandboxd.profile.schema import Allow, Argument, Deny, Seccomp
from sandboxd.profile.seccomp import ALLOW, KILL_PROCESS, Meaning, Memfd
from tests.unit.profile.profiles import profile, shipped

X86 = 0xC000003E
EPERM = 0x50000 | errno.EPERM
ENOSYS = 0x50000 | errno.ENOSYS


def spec(*names: str, args: tuple[Argument, ...] = (), deny: tuple[Deny, ...] = ()) -> Seccomp:
    return Seccomp(allow=(Allow(names=names, why="a test of it", args=args),), deny=deny)


def answer(program: bytes, name: str | int, *args: int, arch: int = X86) -> int:
    number = name if isinstance(name, int) else {v: k for k, v in seccomp.known_numbers("x86_64").items()}[name]
    padded = (*args, *(0,) * (6 - len(args)))
    return bpf.run(bpf.decode(program), Call(number, arch, padded))  # type: ignore[arg-type]


def default(memfd: Memfd = Memfd.SYSCTL) -> bytes:
    return seccomp.compiled(profile().spec.seccomp, memfd, "x86_64")


@pytest.mark.parametrize("name", ["ptrace", "bpf", "io_uring_setup", "mount", "fsopen", "unshare", "seccomp", "shmget"])
def test_known_but_not_allowed_calls_answer_eperm(name: str) -> None:
    assert answer(default(), name) == EPERM


@pytest.mark.parametrize("number", [335, 400, 423, 451, 452, 467, 600, 1023, 0x3FFFFFFF, 1 << 31, 0xFFFFFFFF])
def test_unknown_numbers_answer_enosys(number: int) -> None:
    assert answer(default(), number) == ENOSYS


def test_clone3_answers_enosys_so_that_libc_falls_back_to_clone() -> None:
    assert answer(default(), "clone3") == ENOSYS
    assert answer(default(), "clone", 17) == ALLOW
    assert answer(default(), "clone", 0x10000000 | 17) == EPERM


def test_x32_and_foreign_architectures_are_killed() -> None:
    assert answer(default(), 0x40000000 | 39) == KILL_PROCESS
    assert answer(default(), 20, arch=0x40000003) == KILL_PROCESS


def test_high_halves_of_arguments_neither_help_nor_harm() -> None:
    garbage = 0xDEADBEEF << 32
    assert answer(default(), "ioctl", 0, garbage | 0x5412) == EPERM
    assert answer(default(), "ioctl", 0, garbage | 0x5401) == ALLOW


@pytest.mark.parametrize("new", [1, 0x7FFF_0000_0000, 1 << 63])
def test_the_core_limit_can_be_read_and_only_seems_to_be_set(new: int) -> None:
    assert answer(default(), "prlimit64", 0, 4, new, 0) == 0x50000
    assert answer(default(), "prlimit64", 0, 4, 0, new) == ALLOW
    assert answer(default(), "prlimit64", 0, 7, new, 0) == ALLOW
    assert answer(default(), "prlimit64", 1, 4, new, 0) == EPERM
    assert answer(default(), "setrlimit", 4, new) == EPERM
    assert answer(seccomp.compiled(spec("read"), machine="x86_64"), "prlimit64", 0, 4, new, 0) == EPERM


def test_a_query_that_a_profile_leaves_out_is_refused_and_not_answered_with_nothing() -> None:
    program = seccomp.compiled(spec("prlimit64", args=(Argument(index=1, one_of=(7,)),)), machine="x86_64")
    assert answer(program, "prlimit64", 0, 7, 0, 1) == ALLOW
    assert answer(program, "prlimit64", 0, 4, 0, 1) == EPERM
    assert answer(program, "prlimit64", 0, 4, 1, 0) == 0x50000


@pytest.mark.parametrize(
    ("memfd", "plain", "sealed", "executable"),
    [
        (Memfd.SYSCTL, ALLOW, ALLOW, ALLOW),
        (Memfd.SEAL, EPERM, ALLOW, EPERM),
        (Memfd.DENY, EPERM, EPERM, EPERM),
    ],
)
def test_memfds_cannot_be_made_executable_where_no_sysctl_holds(
    memfd: Memfd, plain: int, sealed: int, executable: int
) -> None:
    program = default(memfd)
    assert [answer(program, "memfd_create", 0, flags) for flags in (1, 9, 0x11)] == [plain, sealed, executable]


def test_a_profile_narrows_the_floor_and_cannot_widen_it() -> None:
    unix_only = spec("socket", args=(Argument(index=0, one_of=(1,)),))
    program = seccomp.compiled(unix_only, machine="x86_64")
    assert answer(program, "socket", 1, 1, 0) == ALLOW
    assert answer(program, "socket", 2, 1, 0) == EPERM
    with pytest.raises(ProfileInvalid, match="exclude what the floor allows"):
        seccomp.compiled(spec("socket", args=(Argument(index=0, one_of=(40,)),)))


def test_all_arguments_of_a_group_must_hold() -> None:
    program = seccomp.compiled(
        spec("lseek", args=(Argument(index=0, one_of=(1, 2)), Argument(index=2, mask=3, one_of=(0, 2)))),
        machine="x86_64",
    )
    allowed = [
        (fd, whence) for fd in range(4) for whence in range(8) if answer(program, "lseek", fd, 0, whence) == ALLOW
    ]
    assert allowed == [(fd, whence) for fd in (1, 2) for whence in (0, 2, 4, 6)]


def test_a_denied_call_answers_the_errno_that_the_profile_names() -> None:
    deny = (
        Deny(names=("splice",), errno="EACCES", why="a test of it"),
        Deny(names=("tee",), errno="ENOSYS", why="a test of it"),
    )
    program = seccomp.compiled(spec("read", deny=deny), machine="x86_64")
    assert answer(program, "splice") == 0x50000 | errno.EACCES
    assert answer(program, "tee") == ENOSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", ["default", "strict"])
@pytest.mark.parametrize("memfd", list(Memfd))
def test_shipped_filters_mean_what_their_profiles_say(machine: str, name: str, memfd: Memfd) -> None:
    program = seccomp.compiled(shipped().get(name).spec.seccomp, memfd, machine)
    assert len(program) // 8 < 1024


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(ProfileInvalid, match="riscv64"):
        seccomp.compiled(spec("read"), machine="riscv64")


def _mutants(program: bytes) -> list[bytes]:
    """Each return of the filter made an allow, and each comparison aimed one off."""
    instructions = bpf.decode(program)
    found = []
    for index, step in enumerate(instructions):
        if step.code == bpf.RET_K and step.k != ALLOW:
            changed = Instruction(step.code, 0, 0, ALLOW)
        elif step.code == bpf.RET_K:
            changed = Instruction(step.code, 0, 0, EPERM)
        elif step.code in (bpf.JMP_JEQ_K, bpf.JMP_JSET_K):
            changed = Instruction(step.code, step.jt, step.jf, step.k ^ 1)
        else:
            continue
        found.append(b"".join(s.encode() for s in (*instructions[:index], changed, *instructions[index + 1 :])))
    return found


def test_a_planted_miscompile_is_found_wherever_it_sits() -> None:
    wanted = seccomp.meaning(
        Seccomp(
            allow=(
                Allow(names=("read", "execve", "exit_group", "socket", "clone"), why="a test of it"),
                Allow(names=("lseek",), why="a test of it", args=(Argument(index=2, one_of=(0, 1)),)),
            )
        ),
        Memfd.SYSCTL,
    )
    program = seccomp.assemble(wanted, "x86_64")
    assert seccomp.mismatch(program, wanted, "x86_64") is None
    mutants = _mutants(program)
    assert len(mutants) > 30
    undetected = [index for index, mutant in enumerate(mutants) if seccomp.mismatch(mutant, wanted, "x86_64") is None]
    # what is left changes nothing: libseccomp checks the architecture and x32 again behind our prologue
    prologue_again = [index for index in undetected if _same_everywhere(mutants[index], program)]
    assert undetected == prologue_again


def _same_everywhere(mutant: bytes, program: bytes) -> bool:
    first, second = bpf.decode(mutant), bpf.decode(program)
    calls = [
        Call(number, arch, (argument,) * 6)
        for arch in (X86, 0x40000003)
        for number in (*range(460), 0x40000000, 0x40000027, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFE, 0xFFFFFFFF)
        for argument in (0, 1, 2, 3, 17, 0xFFFFFFFF)
    ]
    return all(bpf.run(first, call) == bpf.run(second, call) for call in calls)


def test_a_filter_that_allows_an_argument_too_much_is_refused() -> None:
    narrow = Meaning({"lseek": ((Match(2, 0xFFFFFFFF, 1),),)}, {})
    wide = seccomp.assemble(Meaning({"lseek": ((Match(2, 0xFFFFFFFE, 0),),)}, {}), "x86_64")
    problem = seccomp.mismatch(wide, narrow, "x86_64")
    assert problem is not None
    assert problem.startswith("lseek")


def test_a_truncated_filter_is_refused() -> None:
    wanted = Meaning({"read": ((),)}, {})
    assert seccomp.mismatch(seccomp.assemble(wanted, "x86_64")[:-8], wanted, "x86_64") is not None


def test_names_of_other_architectures_are_known() -> None:
    assert seccomp.is_syscall("open")
    assert not seccomp.is_syscall("opne")
    assert not seccomp.is_syscall("fchmodat2")
    assert "open" not in seccomp.known_numbers("aarch64").values()
