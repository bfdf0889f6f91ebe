"""Prometheus' own tool, which judges alert rules and metrics for tests. See .ci/build-promtool."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.skips import Lacks, because


def need_promtool() -> str:
    """The program's path; skipped where it is missing, which fails in CI."""
    path = os.environ.get("SANDBOXD_TEST_PROMTOOL") or shutil.which("promtool")
    if path is None:
        build = "build it with .ci/build-promtool and name it in SANDBOXD_TEST_PROMTOOL"
        pytest.skip(because(Lacks.PROGRAM, f"'promtool'; {build}"))
    return path


def promtool(*arguments: str, stdin: str = "", cwd: Path | None = None) -> str:
    """What it says, which is all well; AssertionError with it if not."""
    finished = subprocess.run(
        [need_promtool(), *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env={"HOME": "/nonexistent"},
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout
