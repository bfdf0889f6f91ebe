"""Kills a node's processes and starts it again with the same configuration and state, as a service manager would.

Used by the clean-up tests. Ends only processes below a daemon that the test itself started.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

from sandboxd.client import SandboxdError
from tests import proc
from tests.daemon import CHECKOUT, START_SECONDS, RunningDaemon


def kill(pid: int) -> None:
    """SIGKILL, for a process that may have ended by itself meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until_it_answers(daemon: RunningDaemon) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with daemon.client() as client:
                client.capabilities()
        except SandboxdError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"no answer after a restart:\n{daemon.log.read_text(errors='backslashreplace')[-4000:]}")


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
    home = str(daemon.config.parent)
    with daemon.log.open("ab") as sink:
        process = subprocess.Popen(
            daemon.process.args,
            cwd=CHECKOUT,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": home,
                "XDG_RUNTIME_DIR": f"{home}/run",
                "LANG": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    again = replace(daemon, process=process)
    try:
        wait_until_it_answers(again)
        yield again
    finally:
        process.terminate()
        process.wait(60)
