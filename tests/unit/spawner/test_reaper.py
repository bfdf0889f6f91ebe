"""PID 1 of a container: what it does for its child and for orphans, in a pid namespace of its own."""

import os
import signal
import subprocess
import sys

import pytest

from tests import proc
from tests.daemon import CHECKOUT
from tests.skips import need_root

AS_PID_1 = ("/usr/bin/unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-u", "-c")
BEGIN = "import os, signal, sys, time; from sandboxd.spawner import reaper; reaper.leave_pid_1();"


def _run(program: str) -> subprocess.CompletedProcess[str]:
    need_root()
    return subprocess.run([*AS_PID_1, BEGIN + program], cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_elsewhere_than_at_pid_1_nothing_changes() -> None:
    program = f"before = os.getpid(); {BEGIN} print(os.getpid() == before)" if (os.getpid() != 1) else "print(True)"
    done = subprocess.run(
        [sys.executable, "-c", "import os; " + program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("status", [0, 1, 78])
def test_exit_code_is_the_childs(status: int) -> None:
    assert _run(f"sys.exit({status})").returncode == status


def test_death_by_a_signal_is_told_as_shells_do() -> None:
    assert _run("os.kill(os.getpid(), signal.SIGKILL)").returncode == 128 + signal.SIGKILL


def test_caller_goes_on_as_a_child_and_pid_1_holds_no_capability() -> None:
    done = _run(
        "print(os.getpid() > 1, os.getppid());"
        "[print(l.split()[1]) for l in open('/proc/1/status') if l.startswith(('CapPrm', 'CapEff'))]"
    )
    assert done.stdout.split() == ["True", "1", "0" * 16, "0" * 16]


def test_orphans_are_reaped() -> None:
    done = _run(
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    orphan = os.fork()\n"
        "    if orphan == 0: os.close(write); os.read(0, 1); os._exit(0)\n"
        "    os.write(write, str(orphan).encode()); os._exit(0)\n"
        "os.wait(); orphan = os.read(read, 9).decode()\n"
        "while os.path.exists('/proc/' + orphan): time.sleep(0.01)\n"
        "print('gone')"
    )
    assert done.stdout == "gone\n", done.stderr


def test_signal_that_waits_before_waits_afterwards() -> None:
    begin = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP});" + BEGIN
    program = begin + "print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    need_root()
    done = subprocess.run([*AS_PID_1, program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{int(signal.SIGHUP)}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_reaches_the_child(number: signal.Signals) -> None:
    need_root()
    program = f"signal.signal({int(number)}, lambda n, _: sys.exit(40 + n)); print('up'); time.sleep(60)"
    with subprocess.Popen([*AS_PID_1, BEGIN + program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "up\n"
        (pid_1,) = [process.pid for process in proc.processes().values() if process.parent == outer.pid]
        os.kill(pid_1, number)
        assert outer.wait(60) == 40 + number
