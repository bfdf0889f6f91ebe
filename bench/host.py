"""What a figure was measured on: without it a figure means nothing. Only reads; never changes the machine.

Called by `report`.
"""

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

BUSY_PER_CPU = 0.3


def description() -> list[str]:
    """One sentence a line, for above the tables."""
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} CPUs ({_cpu()}), Linux {platform.release()}, "
        f"Python {platform.python_version()}, uid {os.geteuid()}",
        f"cgroups: {_cgroups()}",
        f"load average at the start: {' '.join(f'{value:.2f}' for value in os.getloadavg())}",
    ]


def warning() -> str:
    """Why this run's figures are not to be quoted; empty on a machine that is quiet."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load <= BUSY_PER_CPU * cpus:
        return ""
    return (
        f"WARNING: load average {load:.2f} on {cpus} CPUs: something else is running, so milliseconds are not those of "
        "this machine; compare ratios within this run, and CPU time, at most"
    )


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cgroups() -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    first = [fields for fields in mounts if fields[2] == "cgroup"]
    if not first:
        return "v2" if any(fields[2] == "cgroup2" for fields in mounts) else "none mounted"
    if any("favordynmods" in fields[3].split(",") for fields in first):
        return "v1 with favordynmods"
    return "v1 without favordynmods (attaching to a busy one can take milliseconds)"
