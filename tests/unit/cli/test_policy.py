"""The commands as a person runs them: what they say on which stream, and their exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.policy import question


def sandboxctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = "from sandboxd.cli import sandboxctl_main; sandboxctl_main()"
    command = [sys.executable, "-c", script, "policy", *map(str, arguments)]
    return subprocess.run(command, env={"PATH": "/nonexistent"}, capture_output=True, text=True, timeout=120)


def test_shipped_policy_passes_its_tests() -> None:
    done = sandboxctl("test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("opa: not on PATH, so nothing was compared\n")


def test_decision_of_the_shipped_policy_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(question().document)
    done = sandboxctl("check", tmp_path / "a.json", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "allow"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("test", "/nonexistent"), "sandboxctl: cannot read policy '/nonexistent': No such file or directory\n"),
        (("check", "/nonexistent.json"), "sandboxctl: cannot read '/nonexistent.json': No such file or directory; "),
        (("replay", "--bundle", "/nonexistent"), "sandboxctl: cannot read policy '/nonexistent': No such file"),
    ],
)
def test_failure_is_one_line_on_stderr_and_exits_125(arguments: tuple[str, ...], told: str) -> None:
    done = sandboxctl(*arguments)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(told) and done.stderr.count("\n") == 1


def test_replay_without_a_record_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package sandboxd\n\ndecision := true\n")
    done = sandboxctl("replay", "--bundle", tmp_path, "--state-dir", tmp_path)
    assert done.returncode == 125
    assert f"there is no record in '{tmp_path}/journal'; name the node's --state-dir" in done.stderr
