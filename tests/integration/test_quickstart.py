"""The quickstart and the command line, as a newcomer types them, against a real daemon in each mode."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.daemon import RunningDaemon

CHECKOUT = Path(__file__).resolve().parents[2]


def command(daemon: RunningDaemon, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "SANDBOXD_ADDRESS": daemon.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sandboxctl(daemon: RunningDaemon, *arguments: str) -> subprocess.Popen[str]:
    # Ctrl-C as a terminal has it: whoever starts tests in the background may have them ignore it.
    script = "signal.signal(signal.SIGINT, signal.default_int_handler); sandboxctl_main()"
    return command(daemon, "-c", f"import signal; from sandboxd.cli import sandboxctl_main; {script}", *arguments)


def test_quickstart_runs_the_good_program_and_stops_the_hostile_one(daemon: RunningDaemon) -> None:
    with command(daemon, "examples/quickstart.py") as process:
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert "summed 3 numbers" in stdout
    assert '{"sum": 42}' in stdout
    assert "it worked" not in stdout
    assert "ended by WALL_TIMEOUT" in stdout
    assert "refused: override_not_tighter" in stdout


def test_program_has_its_own_exit_code_streams_and_signals(daemon: RunningDaemon) -> None:
    with sandboxctl(daemon, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 7") as process:
        assert process.communicate(timeout=60) == ("out\n", "err\n")
    assert process.returncode == 7
    with sandboxctl(daemon, "run", "--", "sh", "-c", "kill -SEGV $$") as process:
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGSEGV


def test_interrupt_kills_the_program_inside(daemon: RunningDaemon) -> None:
    with sandboxctl(daemon, "run", "--", "sh", "-c", "echo up; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    with daemon.client() as client:
        ended = next(e for e in client.executions() if "sleep 1000" in e.command)
        deadline = time.monotonic() + 30
        while ended.result is None and time.monotonic() < deadline:
            time.sleep(0.01)
            ended = client.execution(ended.execution_id)
    assert ended.result is not None
    assert ended.result.end_reason == "CANCELLED"
