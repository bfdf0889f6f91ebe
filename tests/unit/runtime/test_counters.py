import os
import select
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sandboxd.model import SandboxUsage
from sandboxd.runtime.counters import Counters, usage
from sandboxd.spawner import cgroup, counters
from tests.unit.spawner.conftest import SANDBOX_ID
from tests.unit.spawner.conftest import subtree as subtree
from tests.unit.spawner.conftest import tree as tree

ALLOCATE = """
import sys
sys.stdin.read()
held = []
while True:
    held.append(bytearray(1 << 20))
"""


def _open(tmp_path: Path, name: str, text: str) -> int:
    (tmp_path / name).write_text(text)
    return os.open(tmp_path / name, os.O_RDONLY)


def test_what_no_counter_tells_stays_unknown() -> None:
    assert usage(()) == SandboxUsage()
    assert usage((("cpu_user_seconds", 1.5), ("peak_pids", 3.0), ("unheard_of", 1.0))) == SandboxUsage(
        cpu_user_seconds=1.5, peak_pids=3
    )


def test_files_of_both_versions_are_read(tmp_path: Path) -> None:
    with closing(
        Counters(
            {
                "cpuacct.usage_user": _open(tmp_path, "cpuacct.usage_user", "1500000000\n"),
                "cpuacct.usage_sys": _open(tmp_path, "cpuacct.usage_sys", "500000000\n"),
                "memory.max_usage_in_bytes": _open(tmp_path, "max", "4096\n"),
                "pids.events": _open(tmp_path, "pids.events", "max 2\n"),
                "io.stat": _open(tmp_path, "io.stat", "8:0 rbytes=5 wbytes=6\n"),
            }
        )
    ) as read:
        assert read.read() == SandboxUsage(
            cpu_user_seconds=1.5,
            cpu_system_seconds=0.5,
            peak_memory_bytes=4096,
            io_read_bytes=5,
            io_write_bytes=6,
            pids_denied=2,
        )


def test_what_its_birth_used_is_not_the_sandbox_s(tmp_path: Path) -> None:
    fds = {"cpuacct.usage_user": _open(tmp_path, "cpuacct.usage_user", "1500000000\n")}
    with closing(Counters(fds, (("cpu_user_seconds", 1.25),))) as read:
        assert read.read().cpu_user_seconds == 0.25


def test_sandbox_without_counters_has_nothing_to_wait_for() -> None:
    with closing(Counters({})) as none:
        assert none.read() == SandboxUsage()
        assert none.oom_descriptor() is None
        assert not none.oom_happened()


def test_real_oom_wakes_the_waiter_once(tree: cgroup.CgroupTree) -> None:
    made = tree.create(SANDBOX_ID)
    made.limit(cgroup.CgroupLimits(memory_bytes=16 << 20))
    with closing(Counters(dict(made.counters()))) as counted, closing(select.epoll()) as waiter:
        descriptor = counted.oom_descriptor()
        assert descriptor is not None
        counted.oom_happened()
        waiter.register(descriptor, select.EPOLLIN)
        assert waiter.poll(0) == []

        # Not a fork of this process: gRPC's threads were in it, and what it wants done after a fork may wait for them.
        with subprocess.Popen([sys.executable, "-c", ALLOCATE], stdin=subprocess.PIPE) as hog:
            assert hog.stdin is not None
            made.attach(hog.pid)
            hog.stdin.close()
            assert waiter.poll(30)
            assert hog.wait() == -signal.SIGKILL
        assert counted.oom_happened()
        assert not counted.oom_happened()
        assert waiter.poll(0) == []
        assert counted.read().oom_kills >= 1
        made.remove()
        assert counted.read() == SandboxUsage()
        assert not counted.oom_happened()


def test_descriptors_are_closed() -> None:
    """Seen at the other ends of two pipes: what else is open here, other tests' threads may close meanwhile."""
    (end, peak), (oom, other_end) = os.pipe2(os.O_NONBLOCK), os.pipe2(os.O_NONBLOCK)
    counted = Counters({"pids.peak": peak, counters.OOM: oom})
    assert not counted.oom_happened()
    counted.close()
    counted.close()
    assert os.read(end, 1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(other_end, b"x")
    os.close(end)
    os.close(other_end)
