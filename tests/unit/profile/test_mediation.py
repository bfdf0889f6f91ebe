"""What `mediate` and `report` of a profile come to."""

import errno
from pathlib import Path

import pytest

from sandboxd.errors import ProfileInvalid, Unenforceable
from sandboxd.model import Guarantee, State
from sandboxd.profile import bpf, compile, floor, mediation, seccomp
from sandboxd.profile.bpf import Call
from sandboxd.profile.load import load_profiles
from sandboxd.profile.report import refuse_unenforceable, report
from sandboxd.profile.resolve import ResolvedProfile
from sandboxd.profile.rules import WORD
from sandboxd.profile.seccomp import ALLOW, NOTIFY, Memfd, Notified
from sandboxd.spawner.template import NO_MEDIATION
from tests.unit.profile.profiles import SHIPPED, capabilities, child, profile, shipped

NUMBERS = {name: number for number, name in seccomp.known_numbers().items()}
ARCH = seccomp._token("")
EXECVEAT = "  seccomp:\n    allow:\n      - {names: [execveat], why: a test of it}\n"
ASKING = "  mediate: [process.exec]\n  report: [ptrace, mount, clone3, kexec_load]\n"


def extended(tmp_path: Path, spec: str, extends: str = "default") -> ResolvedProfile:
    (tmp_path / "child.yaml").write_text(child(spec, extends=extends))
    return load_profiles([SHIPPED, tmp_path]).get("child")


def answer(program: bytes, name: str, *args: int, arch: int = ARCH) -> int:
    padded = (*args, *(0,) * (6 - len(args)))
    return bpf.run(bpf.decode(program), Call(NUMBERS[name], arch, padded))  # type: ignore[arg-type]


def test_mediated_exec_and_reported_calls_are_handed_over_and_nothing_else_is(tmp_path: Path) -> None:
    asking = extended(tmp_path, ASKING + EXECVEAT)
    plain = bpf.decode(seccomp.compiled(profile().spec.seccomp))
    program = bpf.decode(mediation.filtered(asking.spec).program)
    handed = set()
    for number, name in seccomp.known_numbers().items():
        for args in ((0,) * 6, (1,) * 6, (0, 4, 0, 0, 0, 0)):
            before, now = (bpf.run(filter_, Call(number, ARCH, args)) for filter_ in (plain, program))
            if now == NOTIFY:
                handed.add(name)
            else:
                assert now == before, name
    assert handed == {"execve", "execveat", "ptrace", "mount", "clone3", "kexec_load"} & set(NUMBERS)


def test_foreign_exec_is_killed_all_the_same(tmp_path: Path) -> None:
    program = mediation.filtered(extended(tmp_path, ASKING).spec).program
    assert answer(program, "execve", arch=0x40000003) == seccomp.KILL_PROCESS


def test_filters_that_could_silence_the_questions_stay_out_of_reach(tmp_path: Path) -> None:
    program = mediation.filtered(extended(tmp_path, ASKING).spec).program
    eperm = 0x50000 | errno.EPERM
    assert answer(program, "seccomp", 1, 0, 1 << 40) == eperm
    assert answer(program, "prctl", 22, 2, 1 << 40) == eperm  # PR_SET_SECCOMP
    assert answer(program, "prctl", 38, 1) == ALLOW


def test_exec_that_the_profile_does_not_allow_is_refused_by_the_filter(tmp_path: Path) -> None:
    asking = extended(tmp_path, "  mediate: [process.exec]\n")
    assert answer(mediation.filtered(asking.spec).program, "execveat") == 0x50000 | errno.EPERM


def test_template_says_with_what_a_reported_call_fails(tmp_path: Path) -> None:
    denied = "  seccomp:\n    deny:\n      - {names: [personality], errno: EACCES, why: a test of it}\n"
    reported = ASKING.replace("mount", "personality")
    made = compile.compiled(extended(tmp_path, reported + denied), Memfd.SYSCTL)
    assert made.seccomp_first and made.mediation.exec
    expected = {"clone3": errno.ENOSYS, "kexec_load": errno.EPERM, "personality": errno.EACCES, "ptrace": errno.EPERM}
    assert dict(made.mediation.reported) == {NUMBERS[name]: number for name, number in expected.items()}


def test_profiles_without_either_are_compiled_as_if_there_were_none(tmp_path: Path) -> None:
    off = extended(tmp_path, "  mediate: []\n  report: []\n")
    for each in (*shipped(), off):
        made = compile.compiled(each, Memfd.SYSCTL)
        assert made.mediation == NO_MEDIATION
        assert made.seccomp == seccomp.assemble(seccomp.meaning(each.spec.seccomp, Memfd.SYSCTL))
        assert NOTIFY not in {step.k for step in bpf.decode(made.seccomp) if step.code == bpf.RET_K}
        assert "mediate" not in each.spec_json or each is off


def test_wrong_filter_is_not_handed_out(tmp_path: Path) -> None:
    """The proof knows what a notified call is: one more or less, and the filter does not mean what the profile says."""
    spec = extended(tmp_path, ASKING).spec
    asked, reported = mediation.notified(spec).asked, mediation.notified(spec).reported
    program = mediation.filtered(spec).program
    wanted = seccomp.meaning(spec.seccomp, Memfd.SYSCTL, Notified(asked, reported))
    assert seccomp.mismatch(program, wanted) is None
    others = (asked - {"execve"}, reported), (asked, reported - {"ptrace"}), (asked, reported | {"bpf"})
    for other in (*others, (asked, reported | {"socket"})):
        assert seccomp.mismatch(program, seccomp.meaning(spec.seccomp, Memfd.SYSCTL, Notified(*other))) is not None


@pytest.mark.parametrize(
    ("name", "refused", "let"),
    [
        ("clone", (0x10000011,), (0x11,)),
        ("socket", (40, 1, 0), (2, 1, 6)),
        ("sendto", (3, 1, 1, 0x20000000), (3, 1, 1, 0x4000)),
        ("setsockopt", (3, 6, 30), (3, 6, 1)),
        ("ioctl", (0, 0x5412), (0, 0x5401)),
        ("prctl", (22, 2), (15,)),
        ("prctl", (4, 1), (4, 0)),
        ("madvise", (0, 4096, 12), (0, 4096, 4)),
        ("personality", (0x40000,), (WORD,)),
        ("prlimit64", (1, 7), (0, 7)),
        ("mmap", (0, 4096, 3, 0x40022), (0, 4096, 3, 0x22)),
        ("mknodat", (3, 1 << 40, 0x2000), (3, 1 << 40, 0x1000)),
    ],
)
def test_reported_call_is_handed_over_only_with_arguments_that_are_refused(
    tmp_path: Path, name: str, refused: tuple[int, ...], let: tuple[int, ...]
) -> None:
    reporting = extended(tmp_path, f"  report: [{name}]\n")
    plain, program = seccomp.compiled(profile().spec.seccomp), mediation.filtered(reporting.spec).program
    assert (answer(plain, name, *refused), answer(plain, name, *let)) == (0x50000 | errno.EPERM, ALLOW)
    assert (answer(program, name, *refused), answer(program, name, *let)) == (NOTIFY, ALLOW)
    made = compile.compiled(reporting, Memfd.SYSCTL)
    assert made.mediation.reported == ((NUMBERS[name], errno.EPERM),)


def test_what_is_only_pretended_is_no_refusal_to_report(tmp_path: Path) -> None:
    program = mediation.filtered(extended(tmp_path, "  report: [prlimit64]\n").spec).program
    assert answer(program, "prlimit64", 0, floor.RLIMIT_CORE, 1 << 40) == 0x50000


@pytest.mark.parametrize(
    ("extends", "allowed"),
    [
        ("default", "{names: [read], why: a test of it}"),
        ("build", "{names: [read], why: a test of it}"),
        ("strict", "{names: [fcntl], args: [{index: 1, one_of: [1, 2, 3, 4, 1034]}], why: a program can start}"),
    ],
)
@pytest.mark.parametrize("memfd", Memfd)
def test_whatever_can_be_refused_can_be_reported(tmp_path: Path, extends: str, allowed: str, memfd: Memfd) -> None:
    """All of it at once, and whatever keeps memory files from being run. A compiled filter is a proven one."""
    text = f"  seccomp:\n    allow:\n      - {allowed}\n"
    let = seccomp.never_refused(extended(tmp_path, text, extends).spec.seccomp)
    reported = sorted(set(NUMBERS) - let)
    filtered = mediation.filtered(extended(tmp_path, f"  report: [{', '.join(reported)}]\n{text}", extends).spec, memfd)
    assert filtered.first
    assert [number for number, _ in filtered.reported] == [NUMBERS[name] for name in reported]
    assert answer(filtered.program, "memfd_create", 1 << 40, floor.MFD_HUGETLB) == NOTIFY


def test_child_inherits_both_lists_and_replaces_each_whole(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(child(ASKING, name="parent", extends="default"))
    same = extended(tmp_path, "", extends="parent").spec
    assert (same.mediate, same.report) == (("process.exec",), ("ptrace", "mount", "clone3", "kexec_load"))
    other = extended(tmp_path, "  mediate: []\n  report: [bpf]\n", extends="parent").spec
    assert (other.mediate, other.report) == ((), ("bpf",))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("  mediate: [process.exit]\n", "child.yaml:7: spec.mediate.0"),
        ("  mediate: [process.exec, process.exec]\n", "child.yaml:7: spec.mediate"),
        ("  report: [ptraec]\n", "child.yaml:7: 'ptraec' is not a system call; did you mean 'ptrace'"),
        ("  report:\n    - ptrace\n    - ptrace\n", "child.yaml:7: 'ptrace' stands here 2 times"),
        ("  report: [read]\n", "'read' is in 'spec.report' but allowed"),
        (
            "  report: [flock]\n  seccomp:\n    allow:\n      - {names: [flock], why: a test of it}\n",
            "child.yaml:7: 'flock' is allowed, so nothing refuses it",
        ),
        (
            "  mediate: [process.exec]\n  report: [execveat]\n  seccomp:\n    allow:\n"
            "      - {names: [execveat], args: [{index: 4, one_of: [0]}], why: a test of it}\n",
            "'execveat' is in 'spec.report' but asked about",
        ),
        (
            "  mediate: [process.exec]\n  enforcement: {guarantees: {mediation.exec: best_effort}}\n",
            "'mediation.exec' is part of the floor",
        ),
        ("  mediate: [process.exec]\n  without: {syscalls: [recvmsg]}\n", "lets a program be started; allow recvmsg"),
        ("  report: [ptrace]\n  without: {syscalls: [recvmsg]}\n", "lets a program be started; allow recvmsg"),
    ],
)
def test_what_cannot_be_asked_about_is_refused_with_its_line(spec: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileInvalid) as caught:
        extended(tmp_path, spec)
    assert complaint in str(caught.value)


def test_report_has_the_rows_of_what_the_profile_asks_for_alone(tmp_path: Path) -> None:
    def rows(spec: str) -> set[Guarantee]:
        return {row.guarantee for row in report(extended(tmp_path, spec), capabilities()).rows}

    both = {Guarantee.MEDIATION_EXEC, Guarantee.MEDIATION_REPORT}
    assert not both & rows("")
    assert both & rows("  mediate: [process.exec]\n") == {Guarantee.MEDIATION_EXEC}
    assert both & rows("  report: [ptrace]\n") == {Guarantee.MEDIATION_REPORT}


def test_node_that_cannot_ask_refuses_to_run_it(tmp_path: Path) -> None:
    asking = extended(tmp_path, "  mediate: [process.exec]\n")
    for state in (State.ABSENT, State.DEGRADED):
        with pytest.raises(Unenforceable, match=r"mediation\.exec is \w+: the test says so"):
            refuse_unenforceable(asking, report(asking, capabilities(MEDIATION_EXEC=state)))


def test_profile_says_what_asking_is_worth(tmp_path: Path) -> None:
    assert any("may swap what it named" in warning for warning in extended(tmp_path, ASKING).warnings)
    assert not any("may swap" in warning for warning in profile().warnings)
