"""Kills a node's processes and starts it again with the same configuration and state, as a service manager would.

Used by the clean-up tests. Ends only processes below a daemon that the test itself started.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

from tests import proc
from tests.daemon import CHECKOUT, RunningDaemon, environment, stop, wait_until_it_answers


def kill(pid: int) -> None:
    """SIGKILL, for a process that may have ended by itself meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_spawner(daemon: RunningDaemon) -> None:
    """And wait until the kernel has ended what hung on it."""
    below = [process.pid for process in proc.descendants(daemon.process.pid)]
    daemon.process.kill()
    daemon.process.wait()
    proc.until(lambda: not set(below) & set(proc.processes()), "everything below the spawner died with it")


@contextlib.contextmanager
def restarted(daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """A second life on the same state; the first one must have ended."""
    assert daemon.process.poll() is not None
    with daemon.log.open("ab") as sink:
        process = subprocess.Popen(
            daemon.process.args,
            cwd=CHECKOUT,
            env=environment(daemon.config.parent),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    again = replace(daemon, process=process)
    try:
        wait_until_it_answers(again)
        yield again
    finally:
        stop(process, daemon.log)
