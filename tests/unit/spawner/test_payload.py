"""What a program gets: its streams, its limits, its signals, nothing else; and how one ends that cannot run."""

import contextlib
import errno
import platform
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.spawner import payload, wire
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.spawner_rig import CEILINGS, EXECUTE, LAUNCH, TEMPLATE, Sandbox


def test_program_has_its_three_streams_and_no_other_descriptor(sandbox: Sandbox) -> None:
    script = "import os; print(sorted(int(name) for name in os.listdir('/proc/self/fd')))"
    assert sandbox.run("python3", "-c", script).output == "[0, 1, 2, 3]\n"  # 3 is the listing itself


def test_program_finds_every_signal_at_its_default_and_none_blocked(sandbox: Sandbox) -> None:
    ended = sandbox.run("/bin/cat", "/proc/self/status")
    fields = dict(line.split(":") for line in ended.output.splitlines())
    assert {fields[name].strip() for name in ("SigBlk", "SigIgn", "SigCgt")} == {"0" * 16}


def test_starter_that_ignores_and_blocks_every_signal_leaves_none_so() -> None:
    """Those of libc as well, which some starters of services ignore: a program would inherit it for good."""
    script = """
import ctypes, pathlib, signal
from sandboxd.spawner import init
libc = ctypes.CDLL(None)
for number in set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP}:
    assert libc.syscall(SIGACTION, number, (1).to_bytes(32, "little"), None, 8) == 0
assert libc.syscall(SIGPROCMASK, 0, b"\\xff" * 8, None, 8) == 0
names = ("SigBlk", "SigIgn", "SigCgt")
state = lambda: [int(line.split()[1], 16) for line in open("/proc/self/status") if line[:6] in names]
before = state()
init.forget_the_spawner()
print(before[0] != 0, before[1] >> 31 & 3, state())
"""
    action, mask = (13, 14) if platform.machine() == "x86_64" else (134, 135)
    script = script.replace("SIGACTION", str(action)).replace("SIGPROCMASK", str(mask))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1  # init's own, which `payload` resets
    assert ended.stdout.split() == f"True 3 [0, {kept}, 0]".split()


def test_program_has_no_capability_and_can_gain_none(sandbox: Sandbox) -> None:
    ended = sandbox.run("/bin/grep", "-E", "^(Cap|NoNewPrivs|Seccomp:|Groups)", "/proc/self/status")
    fields = dict(line.split(":") for line in ended.output.splitlines())
    assert {fields[name].strip() for name in fields if name.startswith("Cap")} == {"0" * 16}
    assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip(), fields["Groups"].strip()) == ("1", "2", "")


def test_environment_is_the_plans_and_nothing_else(sandbox: Sandbox) -> None:
    ended = sandbox.run("/usr/bin/env", plan=replace(EXECUTE, env=(("ONE", "1"), ("EMPTY", ""))))
    assert ended.output.splitlines() == ["ONE=1", "EMPTY="]


def test_limits_are_hard(sandbox: Sandbox) -> None:
    script = """
import resource as r
for name in ("NOFILE", "FSIZE", "CPU", "CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO"):
    kind = getattr(r, "RLIMIT_" + name)
    soft, hard = r.getrlimit(kind)
    try:
        r.setrlimit(kind, (soft, hard + 1))
    except ValueError:
        print(name, soft, hard)
"""
    ended = sandbox.run("python3", "-c", script)
    assert ended.output.splitlines() == [
        "NOFILE 64 64",
        "FSIZE 8388608 8388608",
        "CPU 5 6",
        "CORE 1 1",
        "MEMLOCK 65536 65536",
        "MSGQUEUE 0 0",
        "NICE 0 0",
        "RTPRIO 0 0",
    ]


def test_rlimits_stand_in_where_there_is_no_cgroup(sandbox: Sandbox) -> None:
    plan = replace(EXECUTE, memory_bytes=512 << 20, pids=40)
    script = "import resource as r; print(*(r.getrlimit(k) for k in (r.RLIMIT_DATA, r.RLIMIT_AS, r.RLIMIT_NPROC)))"
    expected = f"{(512 << 20, 512 << 20)} {(4 << 30, 4 << 30)} (40, 40)\n"
    assert sandbox.run("python3", "-c", script, plan=plan).output == expected


def test_new_file_is_not_writable_for_others(sandbox: Sandbox) -> None:
    assert sandbox.run("/bin/sh", "-c", "umask; >f; stat -c %a f").output == "0022\n644\n"


def test_program_leads_a_session_without_a_terminal(sandbox: Sandbox) -> None:
    script = "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0)); open('/dev/tty')"
    ended = sandbox.run("python3", "-c", script)
    assert ended.output.endswith("True\n")
    assert ended.status == 1


def test_executions_in_two_slots_have_two_uids(sandbox: Sandbox) -> None:
    uids = {sandbox.run("/usr/bin/id", "-u", plan=replace(EXECUTE, slot=slot)).output for slot in (0, 1, 14)}
    assert uids == {"1000\n", "1001\n", "1014\n"}


@pytest.mark.parametrize(
    ("argv", "path", "status"),
    [
        (("no-such-program",), "/usr/bin", 127),
        (("/no/such/program",), "/usr/bin", 127),
        (("true",), "", 127),
        (("true",), ":::", 127),
        (("true",), "/no/such:/usr/bin", 0),
        (("true",), "/etc/passwd:/usr/bin", 0),
        (("",), "/usr/bin", 127),
        (("/etc/passwd",), "/usr/bin", 126),
        (("/usr",), "/usr/bin", 126),
        (("passwd",), "/etc:/workspace", 126),
        (("/etc/passwd/x",), "/usr/bin", 127),
        (("x" * 5000,), "/usr/bin", 126),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_program_that_cannot_run_ends_as_in_a_shell(
    argv: tuple[str, ...], path: str, status: int, sandbox: Sandbox
) -> None:
    ended = sandbox.run(*argv, plan=replace(EXECUTE, env=(("PATH", path),)))
    assert ended.status == status
    assert bool(ended.output) == (status != 0)


@pytest.mark.parametrize(
    "plan",
    [
        replace(EXECUTE, env=(("A\0B", "x"),)),
        replace(EXECUTE, env=(("A=B", "x"),)),
        replace(EXECUTE, env=(("A", "\ud800"),)),
        replace(EXECUTE, env=(("A", "x\0y"),)),
    ],
)
def test_environment_that_no_program_can_have_runs_nothing(plan: wire.Execute, sandbox: Sandbox) -> None:
    assert sandbox.run("/bin/true", plan=plan).status == 126


def test_argument_with_nul_runs_nothing(sandbox: Sandbox) -> None:
    assert sandbox.run("/bin/echo", "a\0b").status == 126
    assert sandbox.run("/bin/ec\0ho").status == 126


@pytest.mark.parametrize("cwd", ["/no/such", "/etc/passwd", "x\0y", ""])
def test_directory_that_cannot_be_entered_runs_nothing_and_says_so(cwd: str, sandbox: Sandbox) -> None:
    sandbox.begin(replace(EXECUTE, cwd=cwd))
    failed, _ = sandbox.init.expect(wire.ExecFailed)
    assert (failed.execution_id, failed.step) == (EXECUTE.execution_id, "chdir")
    assert sandbox.init.expect(wire.Exited)[0].execution_id == EXECUTE.execution_id


def test_arguments_larger_than_a_packet_arrive_whole(sandbox: Sandbox) -> None:
    """As a memory file, though the sandbox's pid namespace lets none be made that could be executed."""
    arguments = [character * 100_000 for character in "abc"]
    ended = sandbox.run("python3", "-c", "import sys; print([len(a) for a in sys.argv[1:]])", *arguments)
    assert ended.output == "[100000, 100000, 100000]\n"


def test_odd_arguments_arrive_unchanged(sandbox: Sandbox) -> None:
    arguments = ["", " ", "\n", "\x1b[2J", "ü€😀", "'\"\\", "--", "\u2028"]
    ended = sandbox.run("python3", "-c", "import sys; print(ascii(sys.argv[1:]))", *arguments)
    assert ended.output.strip() == ascii(arguments)


def test_cpu_seconds_are_rounded_up_and_never_zero() -> None:
    def cpu(seconds: float) -> tuple[int, int]:
        limits = payload._rlimits(replace(EXECUTE, cpu_seconds=seconds))
        return next((soft, hard) for kind, soft, hard in limits if kind == resource.RLIMIT_CPU)

    assert [cpu(seconds)[0] for seconds in (0.001, 1.0, 1.001, 9.9)] == [1, 1, 2, 10]
    assert cpu(CEILINGS.cpu_seconds) == (10, 11)


def test_failure_tells_step_errno_and_detail_whatever_the_bytes() -> None:
    assert payload.failure(b"chdir\x002\x00[Errno 2] \xff\x00x") == ("chdir", 2, "[Errno 2] \ufffd\x00x")


def _filter(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_CHDIR = 80 if platform.machine() == "x86_64" else 49
NO_CHDIR = _filter((0x20, 0, 0, 0), (0x15, 0, 1, _CHDIR), (0x06, 0, 0, _EPERM), (0x06, 0, 0, _ALLOW))
NOT_TAKEN = _filter((0x05, 0, 0, 100), (0x06, 0, 0, _ALLOW))  # a jump to behind the end


@contextlib.contextmanager
def _launched(directory: Path, seccomp: bytes, *, first: bool) -> Iterator[Sandbox]:
    need_root()
    with spawner_rig.start(directory) as rig:
        rig.compile(replace(TEMPLATE, seccomp=seccomp, seccomp_first=first))
        daemon = rig.daemon()
        sandbox = daemon.ready_sandbox()
        yield sandbox
        daemon.destroy(sandbox)


def _filtered(pid: int) -> bool:
    return "Seccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("first", [True, False])
def test_filter_is_there_before_the_plan_only_where_it_lets_a_program_start(tmp_path: Path, first: bool) -> None:
    with _launched(tmp_path, spawner_rig.ALLOW_ALL, first=first) as sandbox:
        armed = min(sandbox.children())  # its keeper came after it
        assert _filtered(armed) is first
        ended = sandbox.run("/bin/grep", "Seccomp:", "/proc/self/status")
        assert ended.output == "Seccomp:\t2\n"
        assert sandbox.run("/bin/grep", "Seccomp:", "/proc/self/status").output == "Seccomp:\t2\n", "armed later"


def test_filter_that_comes_last_need_not_let_the_steps_before_it(tmp_path: Path) -> None:
    with _launched(tmp_path, NO_CHDIR, first=False) as sandbox:
        assert sandbox.run("/bin/true").status == 0


def test_filter_that_refuses_a_step_lets_no_program_run(tmp_path: Path) -> None:
    with _launched(tmp_path, NO_CHDIR, first=True) as sandbox:
        sandbox.begin(replace(EXECUTE, argv=("/bin/touch", "ran")))
        failed, _ = sandbox.init.expect(wire.ExecFailed)
        assert (failed.step, failed.errno) == ("chdir", errno.EPERM)


def test_filter_that_the_kernel_does_not_take_lets_no_program_run(tmp_path: Path) -> None:
    with _launched(tmp_path, NOT_TAKEN, first=False) as sandbox:
        for _ in range(2):
            sandbox.begin(replace(EXECUTE, argv=("/bin/touch", "ran")))
            failed, _ = sandbox.init.expect(wire.ExecFailed)
            assert (failed.step, failed.errno) == ("seccomp", errno.EINVAL)


def test_filter_that_the_kernel_does_not_take_lets_no_sandbox_be_born(tmp_path: Path) -> None:
    need_root()
    with spawner_rig.start(tmp_path) as rig:
        rig.compile(replace(TEMPLATE, seccomp=NOT_TAKEN, seccomp_first=True))
        daemon = rig.daemon()
        daemon.peer.send(LAUNCH)
        refused, _ = daemon.peer.expect(wire.Refused)
        assert (refused.reason, "seccomp" in refused.message) == ("launch_failed", True)
