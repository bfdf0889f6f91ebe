"""Our side of the race: a real daemon with everything on, and a caller of the same user speaking gRPC to it.

CPU time is that of spawner and daemon with all that they waited for, between two readings. Called by `race`.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from bench.timing import Sample
from tests import reachable
from tests.daemon import CHECKOUT, Mode, RunningDaemon, start_daemon

NANO = 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """One Execute as its caller saw it; milliseconds since the request, but `began` (wall clock, nanoseconds)."""

    execution_id: str
    began: int
    accepted: float
    first: float | None
    total: float

    def sample(self) -> Sample:
        return Sample(self.total, self.first, None)


class Ours:
    """A daemon and its caller."""

    def __init__(self, daemon: RunningDaemon, caller: subprocess.Popen[str]) -> None:
        self.daemon = daemon
        self.name = f"sandboxd, {daemon.mode}"
        self._caller = caller

    def execute(self, argv: Sequence[str], count: int = 1, callers: int = 1) -> list[Run]:
        stdin, stdout = self._caller.stdin, self._caller.stdout
        if stdin is None or stdout is None:
            raise SystemExit("the caller has no pipes")
        stdin.write(json.dumps({"argv": list(argv), "callers": callers, "count": count}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"the caller of {self.name} ended with {self._caller.wait()}")
        return [_run(row) for row in json.loads(line)["runs"]]

    def cpu(self) -> float:
        """Milliseconds so far, all parts of the node together."""
        spawner = psutil.Process(self.daemon.process.pid)
        return sum(_cpu(process) for process in (spawner, *spawner.children(recursive=True)))

    def idle(self) -> list[float]:
        """MB (PSS) of each sandbox in stock: its init and the armed child, whose memory the keeper shares."""
        spawner = psutil.Process(self.daemon.process.pid)
        families = [child for child in spawner.children() if child.pid != self.daemon_pid()]
        return [sum(_pss(process) for process in (init, *init.children()[:1])) for init in families]

    def daemon_pid(self) -> int:
        for child in psutil.Process(self.daemon.process.pid).children():
            if "sandboxd.daemon" in child.cmdline():
                return child.pid
        raise SystemExit("the spawner has no daemon")


@contextlib.contextmanager
def ours(mode: Mode, settings: str = "") -> Iterator[Ours]:
    """A node of that mode until the block ends; `settings` as of `start_daemon`."""
    with start_daemon(mode, settings) as daemon:
        command = [sys.executable, "-m", "bench.caller", f"unix:{daemon.socket}"]
        if mode.uid != os.geteuid():
            user = ["/usr/bin/setpriv", f"--reuid={mode.uid}", f"--regid={mode.uid}", "--clear-groups"]
            command = [*reachable.prefix(CHECKOUT), *user, *command]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin"}, stdin=pipe, stdout=pipe, text=True
        ) as caller:
            yield Ours(daemon, caller)


def _run(row: dict[str, object]) -> Run:
    match row:
        case {"id": str(name), "began": int(began), "accepted": int(accepted), "first": first, "total": int(total)}:
            return Run(name, began, accepted / NANO, first / NANO if isinstance(first, int) else None, total / NANO)
        case _:
            raise SystemExit(f"the caller answered {row!r}")


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return 1000 * float(times.user + times.system + times.children_user + times.children_system)


def _pss(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 1e6
