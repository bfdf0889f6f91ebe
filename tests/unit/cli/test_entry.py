import os
import signal
import subprocess
import sys
from pathlib import Path

from tests import proc
from tests.fakes.server import FakeDaemon
from tests.unit.cli.conftest import Sandboxctl

SLOW = ("typer", "rich", "pydantic", "ruamel")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", code, *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)


def test_run_imports_nothing_that_is_slow_to_start() -> None:
    code = (
        "import sys\nfrom sandboxd.cli.entry import run_main\n"
        f"run_main(['--address', '/nowhere', 'x'])\nprint(*[name for name in {SLOW!r} if name in sys.modules])"
    )
    assert python(code).stdout == "\n"


def test_hangup_does_not_end_what_is_about_to_become_the_spawner(tmp_path: Path) -> None:
    """It waits for its configuration here, which it then cannot read, and says so."""
    os.mkfifo(tmp_path / "config.yaml")
    command = [sys.executable, "-m", "sandboxd", "serve", "--config", str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starting:
        proc.until(lambda: proc.blocks(starting.pid, signal.SIGHUP), "the signal waits")
        starting.send_signal(signal.SIGHUP)
        (tmp_path / "config.yaml").write_text("lissen: x\n")
        _, said = starting.communicate(timeout=60)
    assert starting.returncode == 78
    assert "unknown key" in said


def test_run_is_listed_among_the_commands(sandboxctl: Sandboxctl) -> None:
    done = sandboxctl("--help")
    assert done.returncode == 0
    for command in (b" run ", b" ps ", b" logs ", b" kill ", b" version ", b" profile "):
        assert command in done.stdout


def test_help_of_run_tells_the_exit_codes(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    done = sandboxctl("run", "--help")
    assert (done.returncode, daemon.requests) == (0, [])
    assert b"Exit code: the program's own" in done.stdout


def test_module_is_the_command_of_the_node() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandboxd", "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    for command in ("serve", "check", "config"):
        assert command in done.stdout
