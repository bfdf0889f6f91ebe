"""The spawner's probe as this process may see it: run as a child, decoded strictly.

Never probes in this process, which has threads. Called by `check`.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sandboxd.errors import RuntimeFailed
from sandboxd.model import EnforcementRow, Guarantee, Isolation, RuntimeCapabilities, State

_SECONDS = 120.0
_SOURCE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Probed:
    """`mode` is "none" and `refusal` says why where the spawner would not start."""

    mode: str
    refusal: str
    kernel: str
    landlock_abi: int
    memfd: str
    cgroup_version: str
    cgroup_controllers: tuple[str, ...]
    cgroup_reason: str
    capabilities: RuntimeCapabilities


def probe(interpreter: str = sys.executable) -> Probed:
    """RuntimeFailed if the probe does not answer as it should."""
    try:
        done = subprocess.run(
            [interpreter, "-B", "-m", "sandboxd.spawner.probe"],
            cwd=_SOURCE,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeFailed(f"the probe did not run: {error}") from error
    if done.returncode:
        last = done.stderr.decode(errors="backslashreplace").strip().splitlines()[-1:] or ["no message"]
        raise RuntimeFailed(f"the probe ended with {done.returncode}: {last[0]}")
    return decode(done.stdout)


def decode(output: bytes) -> Probed:
    """RuntimeFailed for anything that the probe could not have written."""
    try:
        body = json.loads(output)
        rows = tuple(
            EnforcementRow(Guarantee(guarantee), State(state), tuple(filter(None, layers.split(","))), reason)
            for guarantee, state, layers, reason in body["facts"]
        )
        mode = str(body["mode"])
        cgroup = body["cgroup"]
        return Probed(
            mode=mode,
            refusal=str(body["refusal"]),
            kernel=str(body["kernel"]),
            landlock_abi=int(body["landlock_abi"]),
            memfd=str(body["memfd"]),
            cgroup_version=str(cgroup["version"]),
            cgroup_controllers=tuple(map(str, cgroup["controllers"])),
            cgroup_reason=str(cgroup["reason"]),
            capabilities=RuntimeCapabilities(Isolation.PROCESS, mode, rows),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RuntimeFailed(f"the probe's answer is not understood: {error!r}") from error
