"""Limits of memory and processes: what takes too much ends or is refused inside, and the daemon does not notice."""

import os

import pytest

from sandboxd.client import Client, EndReason, State
from tests import proc
from tests.daemon import RunningDaemon
from tests.limited import run_limited

MIB = 1 << 20
PYTHON = "/usr/bin/python3"
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])


def _alive(daemon: RunningDaemon, client: Client) -> None:
    assert daemon.process.poll() is None
    assert client.run(["/bin/true"]).exit_code == 0


HOGS = {
    "R02-heap": "x = bytearray(400 << 20)",
    "R02-mmap": "import mmap; m = mmap.mmap(-1, 400 << 20); [m.write(bytes(1 << 20)) for _ in range(400)]",
    "R02-child": "import os\nif os.fork() == 0: x = bytearray(400 << 20)\nos.wait(); import time; time.sleep(1000)",
}
MEMORY_FILE = "import os; f = os.memfd_create('x', 9)\nfor _ in range(400): os.write(f, bytes(1 << 20))"


@pytest.mark.parametrize("source", HOGS.values(), ids=HOGS.keys())
def test_memory_limit_ends_the_whole_execution(source: str, daemon: RunningDaemon, client: Client) -> None:
    limits = {"memory_bytes": 128 * MIB}
    result = run_limited(client, [PYTHON, "-c", source], limits, "limit.memory")
    assert result.end_reason is EndReason.MEMORY_LIMIT, result
    assert result.usage.peak_memory_bytes is not None
    assert result.usage.peak_memory_bytes <= 128 * MIB
    _alive(daemon, client)


def test_r04_memory_file_counts_or_there_is_none(daemon: RunningDaemon, client: Client) -> None:
    """Before MFD_NOEXEC_SEAL (Linux 6.3) nothing but a refusal keeps such a file from being executed."""
    result = run_limited(client, [PYTHON, "-c", MEMORY_FILE], {"memory_bytes": 128 * MIB}, "limit.memory")
    if KERNEL >= (6, 3):
        assert result.end_reason is EndReason.MEMORY_LIMIT, result
    else:
        assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 1)
        assert b"PermissionError" in result.stderr
        (row,) = (row for row in result.enforcement.rows if row.guarantee == "exec.memfd")
        assert (row.state, row.layers) == (State.ENFORCED, ("seccomp",))
    _alive(daemon, client)


def test_memory_of_the_profile_holds_on_every_node(daemon: RunningDaemon, client: Client) -> None:
    """Where no cgroup does it, an address space limit refuses the allocation; nowhere does it succeed."""
    profile = "shell"  # it leaves a slow machine the time to fill the memory
    ceiling = dict(client.profile(profile).limits)["memory_bytes"]
    source = f"x = bytearray({int(ceiling) + 256 * MIB}); print('got it')"
    result = client.run([PYTHON, "-c", source], profile=profile)
    assert b"got it" not in result.stdout
    assert result.end_reason is EndReason.MEMORY_LIMIT or b"MemoryError" in result.stderr
    _alive(daemon, client)


def test_control_less_than_the_limit_is_given(client: Client) -> None:
    result = run_limited(client, [PYTHON, "-c", "x = bytearray(64 << 20)"], {"memory_bytes": 128 * MIB}, "limit.memory")
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 0)


def test_r08_page_cache_is_reclaimed_and_kills_nobody(client: Client) -> None:
    source = f"""
import itertools, pathlib
read = 0
for path in itertools.chain(pathlib.Path("/usr/lib").rglob("*.so*"), pathlib.Path("/usr/bin").iterdir()):
    if path.is_file() and not path.is_symlink() and read < {120 * MIB}:
        read += len(path.read_bytes()) if path.stat().st_size < {16 * MIB} else 0
print(read)
"""
    result = run_limited(client, [PYTHON, "-c", source], {"memory_bytes": 48 * MIB}, "limit.memory")
    assert result.end_reason is EndReason.EXITED, result
    assert int(result.stdout) > 2 * 48 * MIB, "it read less than would not fit"


FORK_BOMB = """
import os, time
born = 0
try:
    while born < 5000:
        if os.fork() == 0:
            time.sleep(1000)
        born += 1
except BlockingIOError:
    print("EAGAIN", born, flush=True)
"""


def test_r01_fork_bomb_stops_at_the_pids_limit(daemon: RunningDaemon, client: Client) -> None:
    result = run_limited(client, [PYTHON, "-c", FORK_BOMB], {"pids": 32}, "limit.pids")
    word, born = result.stdout.split()
    assert word == b"EAGAIN"
    assert int(born) <= 32
    assert "pids" in result.limits_hit
    _alive(daemon, client)


def test_r01_threads_count_as_processes(client: Client) -> None:
    source = """
import threading, time
made = 0
try:
    for _ in range(5000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        made += 1
except RuntimeError:
    print("refused", made, flush=True)
import os; os._exit(0)
"""
    result = run_limited(client, [PYTHON, "-c", source], {"pids": 32}, "limit.pids")
    word, made = result.stdout.split()
    assert word == b"refused"
    assert int(made) <= 32


def test_r01_real_fork_bomb_ends_at_the_deadline(daemon: RunningDaemon, client: Client) -> None:
    result = client.run(["/bin/bash", "-c", ":(){ :|:& };:; wait; sleep 1000"], limits={"wall_seconds": 5})
    assert result.end_reason in (
        EndReason.WALL_TIMEOUT,
        EndReason.CPU_TIMEOUT,
        EndReason.EXITED,
        EndReason.MEMORY_LIMIT,
    )
    proc.until(lambda: proc.sandboxed_programs(daemon.process.pid) == (), "no payload is left")
    _alive(daemon, client)


def test_r17_zombies_count_and_orphans_are_reaped(client: Client) -> None:
    zombies = """
import os
born = 0
try:
    while born < 1000:
        if os.fork() == 0: os._exit(0)
        born += 1
except BlockingIOError:
    print("EAGAIN", flush=True)
"""
    assert run_limited(client, [PYTHON, "-c", zombies], {"pids": 32}, "limit.pids").stdout == b"EAGAIN\n"
    orphans = """
import os, time
for _ in range(200):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
    while True:
        try:
            pids = [p for p in os.listdir("/proc") if p.isdigit()]
        except OSError:
            continue
        if len(pids) < 24: break
        time.sleep(0.01)
print("done", flush=True)
"""
    assert run_limited(client, [PYTHON, "-c", orphans], {"pids": 32}, "limit.pids").stdout == b"done\n"


def test_report_says_how_memory_and_pids_are_held(client: Client) -> None:
    rows = {row.guarantee: row for row in client.run(["/bin/true"]).enforcement.rows}
    for guarantee in ("limit.memory", "limit.pids"):
        row = rows[guarantee]
        assert row.state is State.ENFORCED or row.reason, f"{guarantee} is weaker and must say why"
