"""The unprivileged helpers: who they are, what they see, what they hold."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from sandboxd.spawner import children
from sandboxd.spawner.mounts import Stage
from tests.skips import need_root

UID = 64_401
LOOK = """
import json, os, signal
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(), "env": dict(os.environ),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")), "caps": status["CapEff"].strip(),
    "nnp": status["NoNewPrivs"].strip(), "leader": os.getsid(0) == os.getpid(), "cwd": os.getcwd(),
    "ignored": int(status["SigIgn"], 16) >> (signal.SIGHUP - 1) & 1,
}))
"""
RINGS = """
import ctypes, errno, json
libc = ctypes.CDLL(None, use_errno=True)
X32 = 0x40000000
print(json.dumps([libc.syscall(n, -1, 0, 0, 0, 0, 0) < 0 and errno.errorcode[ctypes.get_errno()]
    for n in (424, 425, 426, 427, 428, X32 + 425)]))
"""


class HostStage:
    """Stands for a stage whose host is where we are."""

    def __init__(self) -> None:
        self.host_mnt = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _look(*arguments: str, identity: children.Identity) -> tuple[Any, int]:
    stage = HostStage()
    read, write = os.pipe()
    leak = os.dup(0)
    try:
        stage_like = cast(Stage, stage)
        child = children.start(stage_like, identity, arguments, {"A": "b", "LC_ALL": "C.UTF-8"}, {1: write}, ())
    finally:
        os.close(write)
        os.close(leak)
    with open(read, "rb") as file:
        output = file.read()
    result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
    os.close(child.pidfd)
    os.close(stage.host_mnt)
    assert result is not None
    return json.loads(output or b"{}"), result.si_status


def test_child_is_nobody_with_nothing() -> None:
    need_root()
    seen, status = _look("-c", LOOK, identity=children.Identity(UID, UID))
    assert status == 0
    assert seen == {
        "ids": [UID] * 6,
        "groups": [],
        "env": {"A": "b", "LC_ALL": "C.UTF-8"},
        "fds": [0, 1, 2, 3],  # 3 is the listing itself
        "caps": "0" * 16,
        "nnp": "1",
        "leader": True,
        "cwd": "/",
        "ignored": 0,
    }


def test_child_that_cannot_be_started_ends_with_70_and_never_comes_back() -> None:
    need_root()
    assert _look("-c", "nul\0", identity=children.Identity(UID, UID)) == ({}, 70)
    assert Path("/proc/self/status").exists()


def test_descriptors_do_not_run_over_each_other() -> None:
    need_root()
    first, second = os.pipe(), os.pipe()
    script = "import os; os.write(3, b'three'); os.write(5, b'five')"
    stage = HostStage()
    given = {5: second[1], 3: first[1]}
    child = children.start(cast(Stage, stage), children.Identity(UID, UID), ("-c", script), {}, given, ())
    os.close(first[1])
    os.close(second[1])
    assert (os.read(first[0], 10), os.read(second[0], 10)) == (b"three", b"five")
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
    for fd in (first[0], second[0], child.pidfd, stage.host_mnt):
        os.close(fd)


def test_child_has_no_io_uring() -> None:
    free = json.loads(subprocess.run([sys.executable, "-c", RINGS], capture_output=True, check=True).stdout)
    assert "ENOSYS" not in free[:5], "the control: this kernel has these calls"
    seen, status = _look("-c", RINGS, identity=children.Identity(None, None))
    assert status == 0
    assert seen == [free[0], "ENOSYS", "ENOSYS", "ENOSYS", free[4], "ENOSYS"]
