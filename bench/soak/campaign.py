"""One fuzzing run of one target in a child process, and its figures in one line.

Never believes a child that ended early: without its result that is a crash too. Called by `__main__`.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.soak.crashes import Crash
from bench.soak.target import load

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to. `coverage_percent` is what `covered` says of the corpus it left."""

    target: str
    driver: str
    executions: int
    cpu_seconds: float
    slowest_seconds: float
    coverage_percent: float
    crashes: tuple[Crash, ...]

    def line(self) -> str:
        rate = self.executions / self.cpu_seconds if self.cpu_seconds else 0.0
        return (
            f"{self.target:9} {self.driver:7} {self.executions:>10} executions {rate:>8.0f}/s"
            f" {self.cpu_seconds:>6.0f} s CPU  coverage {self.coverage_percent:5.1f} %"
            f"  slowest {self.slowest_seconds:.3f} s  {len(self.crashes)} crashes"
        )


def driver() -> str:
    """`guided` where atheris is installed (`pip install --group fuzz`), else `plain`."""
    return "guided" if importlib.util.find_spec("atheris") is not None else "plain"


def campaign(name: str, cpu_seconds: float, kept: Path | None, *, plant: bool) -> Figures:
    """Fuzz one target; `kept` is a directory whose corpus is begun with and added to."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-") as temporary:
        directory = Path(temporary) if kept is None else kept / name
        (directory / "corpus").mkdir(parents=True, exist_ok=True)
        for seed in load(name).seeds:
            (directory / "corpus" / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
        result = directory / "result.json"
        result.unlink(missing_ok=True)
        used = driver()
        words = [name, str(cpu_seconds), str(directory), *(["--planted"] if plant else [])]
        ended = _child(f"bench.soak.{used}", words, background=True)
        if not result.exists():
            return Figures(name, used, 0, 0.0, 0.0, 0.0, (_unexplained(ended, directory),))
        found = json.loads(result.read_text())
        covered = _child("bench.soak.covered", [name, str(directory / "corpus")], background=False)
        if covered.returncode:
            raise RuntimeError(f"coverage cannot be told: {covered.stderr.decode(errors='replace')[-600:]}")
        return Figures(
            name,
            used,
            found["executions"],
            found["cpu_seconds"],
            found["slowest_seconds"],
            float(covered.stdout.partition(b"\n")[0]),
            tuple(Crash(**crash) for crash in found["crashes"]),
        )


def _child(module: str, words: Sequence[str], *, background: bool) -> subprocess.CompletedProcess[bytes]:
    entry = ["/usr/bin/nice", "-n", "19"] if background else []
    return subprocess.run(
        [*entry, sys.executable, "-m", module, *words],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def _unexplained(ended: subprocess.CompletedProcess[bytes], directory: Path) -> Crash:
    """The driver itself died: out of memory, hung, or killed by a signal; libFuzzer leaves the input as a file."""
    left = [path for path in directory.iterdir() if path.name.startswith(("crash-", "oom-", "timeout-", "slow-"))]
    data = left[0].read_bytes() if left else b""
    return Crash("Died", f"status {ended.returncode}", ended.stderr.decode(errors="replace")[-600:], data.hex())
