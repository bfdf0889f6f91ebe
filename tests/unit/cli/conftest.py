"""A `sandboxctl` in a process of its own, with real pipes and signals, before a daemon that runs nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.server import FakeDaemon, accepted, result, says, serving

# Ctrl-C as a terminal has it: whoever starts tests in the background may have them ignore it.
_MAIN = """
import signal
from sandboxd.cli import sandboxctl_main
signal.signal(signal.SIGINT, signal.default_int_handler)
sandboxctl_main()
"""


@dataclass(frozen=True, slots=True)
class Sandboxctl:
    address: str

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments],
            env={**os.environ, "SANDBOXD_ADDRESS": self.address},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            stdout, stderr = process.communicate(stdin, timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon(says(accepted(), result()))


@pytest.fixture
def sandboxctl(daemon: FakeDaemon, tmp_path: Path) -> Iterator[Sandboxctl]:
    with serving(daemon, tmp_path / "s") as address:
        yield Sandboxctl(address)
