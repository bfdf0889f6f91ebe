"""Runs inside the virtual machine as its PID 1: says what kernel this is, runs pytest, reports, and switches off.

The first lines and the last one are read by `machine`; everything between is pytest's own output.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

LANDLOCK_CREATE_RULESET = 444
LANDLOCK_CREATE_RULESET_VERSION = 1
ORDER = Path("tests/vm/.order.json")  # laid on the disk by `machine`


def main() -> None:
    order = json.loads(ORDER.read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    facts = {
        "kernel": os.uname().release,
        "landlock_abi": libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION),
        "cgroup_controllers": Path("/sys/fs/cgroup/cgroup.controllers").read_text().split(),
    }
    _tell(f"{order['mark']} facts {json.dumps(facts)}")
    environment = {**os.environ, **order["environment"]}
    status = subprocess.run([sys.executable, "-m", "pytest", *order["arguments"]], env=environment, check=False)
    _tell(f"{order['mark']} ended {status.returncode}")
    os.sync()
    Path("/proc/sysrq-trigger").write_text("o")
    signal.pause()  # PID 1 must not end before the machine is off


def _tell(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
