"""Limits of time: wall clock, silence, CPU seconds, CPU share. At the end of each the whole tree is dead.

No test here measures how long anything took; each looks at what was left.
"""

import os
import secrets
import signal
import subprocess

import pytest

from sandboxd.client import Client, EndReason
from tests import proc
from tests.daemon import RunningDaemon
from tests.limited import run_limited

# Every way to be missed by a kill of the process group: a new session, a double fork, ignored signals, a stop, a fork
# that goes on. MARKER is an argument of each, so that the host finds whatever is left.
STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
def sleeper(stop):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if stop:
                os.kill(os.getpid(), signal.SIGSTOP)
            os.execv("/bin/sh", ["sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1000; done", sys.argv[1]])
        os._exit(0)
    os.wait()
for stop in (False, True, False, True):
    sleeper(stop)
print("up", flush=True)
"""
FOREVER = "while True: time.sleep(1000)"


@pytest.fixture
def marker() -> str:
    return f"marker-{secrets.token_hex(8)}"


def test_wall_limit_kills_the_whole_tree_and_keeps_the_output(client: Client, marker: str) -> None:
    result = client.run(["/usr/bin/python3", "-c", STUBBORN + FOREVER, marker], limits={"wall_seconds": 3})
    assert result.end_reason is EndReason.WALL_TIMEOUT
    assert result.stdout == b"up\n"
    assert result.exit_code is None or result.signal is None
    assert proc.anywhere(marker) == ()


def test_nothing_survives_a_main_process_that_exits(client: Client, marker: str) -> None:
    result = client.run(["/usr/bin/python3", "-c", STUBBORN, marker])
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 0)
    assert proc.anywhere(marker) == ()


def test_control_the_same_tree_survives_unconfined(marker: str) -> None:
    """What the two tests above would show if nothing killed: the tree outlives its main process."""
    subprocess.run(["/usr/bin/python3", "-c", STUBBORN, marker], check=True, stdout=subprocess.DEVNULL)
    left = proc.anywhere(marker)
    for process in left:
        os.kill(process.pid, signal.SIGKILL)
    assert len(left) >= 2


def test_idle_limit_ends_a_silent_program(client: Client) -> None:
    result = client.run(["/bin/sh", "-c", "echo first; exec sleep 1000"], limits={"idle_seconds": 1})
    assert result.end_reason is EndReason.IDLE_TIMEOUT
    assert result.stdout == b"first\n"


def test_idle_limit_spares_a_program_that_speaks(client: Client) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done"
    result = client.run(["/bin/sh", "-c", script], limits={"idle_seconds": 3})
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 0)


def test_cpu_limit_ends_a_busy_loop(client: Client) -> None:
    result = run_limited(client, ["/bin/sh", "-c", "while :; do :; done"], {"cpu_seconds": 1}, "limit.cpu_time")
    assert result.end_reason is EndReason.CPU_TIMEOUT


def test_cpu_limit_counts_children_that_have_ended(client: Client) -> None:
    """None of them alone comes near the limit, and each is gone before the next starts."""
    script = "while :; do python3 -c 'sum(range(3000000))'; done"
    result = run_limited(client, ["/bin/sh", "-c", script], {"cpu_seconds": 2}, "limit.cpu_time")
    assert result.end_reason is EndReason.CPU_TIMEOUT


def test_cpu_limit_counts_children_side_by_side(client: Client) -> None:
    script = "for i in 1 2 3 4; do (setsid sh -c 'while :; do :; done') & done; wait"
    result = run_limited(client, ["/bin/sh", "-c", script], {"cpu_seconds": 2}, "limit.cpu_time")
    assert result.end_reason is EndReason.CPU_TIMEOUT


def test_r24_threads_get_no_more_than_the_cpu_share(client: Client) -> None:
    """CPU seconds in relation to wall seconds, both as the kernel counted them."""
    script = "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait"
    limits = {"cpus": 0.5, "wall_seconds": 4}
    result = run_limited(client, ["/bin/sh", "-c", script], limits, "limit.cpus")
    assert result.end_reason is EndReason.WALL_TIMEOUT
    usage = result.usage
    assert usage.cpu_user_seconds is not None
    assert usage.cpu_system_seconds is not None
    assert usage.cpu_user_seconds + usage.cpu_system_seconds <= 0.75 * usage.wall_seconds
    assert "cpus" in result.limits_hit


def test_stopped_program_is_killed_at_the_deadline(daemon: RunningDaemon, client: Client, marker: str) -> None:
    result = client.run(["/bin/sh", "-c", "kill -STOP $$", marker], limits={"wall_seconds": 1})
    assert result.end_reason is EndReason.WALL_TIMEOUT
    assert proc.anywhere(marker) == ()
    assert daemon.process.poll() is None
