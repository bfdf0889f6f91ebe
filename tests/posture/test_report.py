"""What a kernel cannot enforce stands in the report, with the consequence; what is left in its place holds.

The kernel is asked here, not the daemon. Says something else on each kernel that the tests run on: see `tests/vm`.
"""

import ctypes
import os
import socket
from pathlib import Path

import pytest

from sandboxd.client import Client, EnforcementRow, State, Unenforceable
from tests.daemon import CGROUP_ROOT, Mode, RunningDaemon

LANDLOCK_CREATE_RULESET, VERSION = 444, 1
PYTHON = "/usr/bin/python3"
# `strict` sets no limit of I/O, lets nothing address a socket, and need not be frozen while it runs.
UNASKED = {"limit.io", "filesystem.sockets", "sandbox.freeze"}


def _landlock_abi() -> int:
    return max(0, int(ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, VERSION)))


def _reported(client: Client) -> dict[str, EnforcementRow]:
    return {row.guarantee: row for row in client.run(["/bin/true"]).enforcement.rows}


def test_landlock_is_reported_as_far_as_this_kernel_has_it(client: Client) -> None:
    rows, abi = _reported(client), _landlock_abi()
    files, scopes = rows["landlock.files"], rows["landlock.scopes"]
    assert rows["landlock.exec"].state is (State.ENFORCED if abi >= 1 else State.ABSENT)
    if abi >= 3:
        assert files.state is State.ENFORCED
    elif abi >= 1:
        assert (files.state, files.layers) == (State.DEGRADED, ("landlock",))
        assert "truncate" in files.reason
    else:
        assert files.state is State.ABSENT
    assert scopes.state is (State.ENFORCED if abi >= 6 else State.ABSENT)
    assert abi >= 6 or "needs Landlock ABI 6" in scopes.reason


def test_what_landlock_leaves_open_is_shut_by_what_the_report_names(client: Client) -> None:
    """Truncation by mounts and modes, signals by the pid namespace, abstract sockets by the network namespace."""
    name = f"sandboxd-report-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as control:
        listener.bind(f"\0{name}")
        listener.listen()
        control.connect(f"\0{name}")
        source = f"""
import os, socket
def tried(what, *args):
    try: what(*args)
    except OSError as error: print(error.errno, end=" ")
    else: print("done", end=" ")
tried(os.truncate, "/usr/bin/env", 0)
tried(os.truncate, "/etc/passwd", 0)
tried(os.kill, {os.getpid()}, 0)
tried(socket.socket(socket.AF_UNIX).connect, "\\0{name}")
"""
        result = client.run([PYTHON, "-c", source])
    truncated, passwd, killed, connected = result.stdout.decode().split()
    assert truncated in ("30", "13"), "EROFS or EACCES"
    assert passwd in ("30", "13"), "EROFS or EACCES"
    assert killed == "3", "ESRCH"
    assert connected in ("111", "1"), "ECONNREFUSED or EPERM"


def test_memory_files_are_held_by_the_sysctl_or_by_the_filter_alone(daemon: RunningDaemon, client: Client) -> None:
    row = _reported(client)["exec.memfd"]
    has_sysctl = Path("/proc/sys/vm/memfd_noexec").exists()
    assert row.state is State.ENFORCED
    # only uid 0 of the host may write the sysctl
    assert row.layers == (("vm.memfd_noexec", "seccomp") if has_sysctl and daemon.mode is Mode.ROOT else ("seccomp",))
    source = "import os; fd = os.memfd_create('x', 1); os.write(fd, b'#!/bin/true\\n'); os.execve(fd, ['x'], {})"
    result = client.run([PYTHON, "-c", source])
    assert result.exit_code == 1
    assert b"PermissionError" in result.stderr


def test_limits_are_held_by_the_cgroups_that_this_node_has(daemon: RunningDaemon, client: Client) -> None:
    rows = _reported(client)
    v2 = (CGROUP_ROOT / "cgroup.controllers").exists()
    delegated = v2 or daemon.mode is Mode.ROOT
    for guarantee in ("limit.memory", "limit.pids", "limit.cpus", "limit.cpu_time"):
        row = rows[guarantee]
        if delegated:
            assert row.state is State.ENFORCED
            assert f"cgroup {'v2' if v2 else 'v1'}" in row.layers
        else:
            assert row.state is not State.ENFORCED
            assert "no cgroup may be made here" in row.reason


def test_profile_that_requires_all_is_refused_by_the_names_of_what_is_lacking(client: Client) -> None:
    found = {row.guarantee: row for runtime in client.capabilities().runtimes for row in runtime.rows}
    lacking = {name: row for name, row in found.items() if row.state is not State.ENFORCED and name not in UNASKED}
    if not lacking:
        assert client.run(["/bin/true"], profile="strict").exit_code == 0
        return
    with pytest.raises(Unenforceable) as refusal:
        client.run(["/bin/true"], profile="strict")
    for name, row in lacking.items():
        assert f"{name} is {row.state}: {row.reason}" in str(refusal.value)
    assert _landlock_abi() >= 6 or "landlock.scopes" in lacking
