"""Kills a daemon at random moments under load, and compares what it told its callers with what is on record.

Used by the integration test and, two hundred times over, by `make soak`. Ends only the daemon that it is given.
"""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sandboxd.audit.key import parse_public, public_pem
from sandboxd.audit.verify import VerifyResult, verify
from sandboxd.client import Accepted, Result, SandboxdError
from tests import proc, restart
from tests.daemon import RunningDaemon

CALLERS = 4
LONGEST_LIFE_SECONDS = 1.5
PROGRAMS = (["/bin/true"], ["/bin/sh", "-c", "echo a; exit 3"], ["/bin/sh", "-c", "head -c 100000 /dev/zero"])
NAMED = 5


@dataclass(slots=True)
class Told:
    """What callers were told: it must be on record, whatever came after."""

    accepted: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    refused: int = 0  # by a daemon that was not there, mostly


def kill_once(node: RunningDaemon, told: Told, chance: random.Random) -> VerifyResult:
    """One life of the daemon under load, ended with SIGKILL; its journal as the dead daemon, or the next, left it."""
    stop = threading.Event()
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(_call, node, told, stop, random.Random(chance.random())) for _ in range(CALLERS)]
        time.sleep(chance.uniform(0.0, LONGEST_LIFE_SECONDS))
        restart.kill(proc.daemon_pid(node.process.pid))
        found = checked(node)
        stop.set()
        for caller in callers:
            caller.result()
    return found


def checked(node: RunningDaemon) -> VerifyResult:
    return verify(node.state_dir / "journal", parse_public(public_pem(node.state_dir)))


def not_on_record(node: RunningDaemon, told: Told) -> list[str]:
    """A sentence for each thing that callers know and the record does not, and for what has no end or two."""
    rules: dict[str, list[str]] = {}
    for record in node.journal():
        ids = record["ids"]
        assert isinstance(ids, dict)
        rules.setdefault(ids["execution_id"], []).append(str(record["rule"]))
    asked = {name for name, found in rules.items() if "execution.requested" in found}
    wrong = [f"{name} was accepted, not on record" for name in told.accepted if name not in asked]
    wrong += [
        f"{name} was accepted without {rule}"
        for name in told.accepted & asked
        for rule in ("policy.decided", "execution.started")
        if rule not in rules[name]
    ]
    wrong += [f"{name} has ended, not on record" for name in told.ended if "execution.ended" not in rules.get(name, ())]
    for name in asked:
        ends = rules[name].count("execution.ended") + rules[name].count("execution.refused")
        if ends != 1:
            wrong.append(f"{name} has {ends} ends on record")
    return wrong[:NAMED]


def _call(node: RunningDaemon, told: Told, stop: threading.Event, chance: random.Random) -> None:
    with node.client() as client:
        while not stop.is_set():
            with _counted(told):
                for event in client.execute(chance.choice(PROGRAMS)):
                    match event:
                        case Accepted():
                            told.accepted.add(event.execution_id)
                        case Result():
                            told.ended.add(event.execution_id)
                        case _:
                            pass


@contextlib.contextmanager
def _counted(told: Told) -> Iterator[None]:
    try:
        yield
    except SandboxdError:
        told.refused += 1
        time.sleep(0.02)  # nobody answers for a while
