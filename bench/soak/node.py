"""A real daemon under a random load of `load.ACTS` and reloads, then under kills of itself; what is left afterwards.

Looks from outside, through /proc and /sys, and at the journal; never asks the daemon whether all is well. Started by
`__main__`.
"""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.soak import load
from sandboxd.audit.key import parse_public, public_pem
from sandboxd.audit.verify import verify
from sandboxd.client import SandboxdError
from tests import leftovers, proc, restart
from tests.daemon import Mode, RunningDaemon, start_daemon, wait_until_it_answers

__all__ = ["Mode", "Outcome", "soak"]

CALLERS = 4
RELOAD_SECONDS = 5.0
DAEMON_KILLS = 5
FIRST_ID = 1_700_000_000  # an id range of our own: whoever runs under one of these is left by us
SETTINGS = f"""\
limits: {{retained_executions: 16, retained_bytes: 1048576, max_concurrent: 16}}
runtimes: {{process: {{ids: {{start: {FIRST_ID}, count: 65536}}}}}}
drain_grace_seconds: 5
log: {{level: warning}}
"""
MIB = 1 << 20
ENDS = frozenset({"execution.ended", "execution.refused"})
MOST_NAMED = 5
# How much more than after the warm-up is still no growth. Memory: the allocator's own play, measured with hello alone.
SLACK = {
    "daemon fds": 4,
    "spawner fds": 8,
    "spawner mounts": 0,
    "processes": 8,
    "cgroups": 48,
    "daemon MiB": 24,
    "spawner MiB": 4,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ends` counts how each act ended; `left` is a sentence for each thing that is not as it has to be."""

    seconds: float
    ends: Counter[tuple[str, str]]
    before: dict[str, int]
    after: dict[str, int]
    records: int
    left: tuple[str, ...]

    def lines(self) -> list[str]:
        total = self.ends.total()
        shown = [f"node: {total} executions in {self.seconds:.0f} s, {total / self.seconds:.1f}/s"]
        shown += [f"  {act:10} {reason:20} {count}" for (act, reason), count in sorted(self.ends.items())]
        shown += [
            f"  {name:15} {count:6} after warm-up, {self.after[name]:6} at the end"
            for name, count in self.before.items()
        ]
        shown.append(f"  {self.records} records in the journal")
        return [*shown, *(f"  LEFT: {sentence}" for sentence in self.left or ("nothing",))]


def soak(seconds: float, mode: Mode) -> Outcome:
    with start_daemon(mode, SETTINGS) as node:
        started = leftovers.of_sandboxes(node)
        begun = time.monotonic()
        ends = _load(node, seconds * 0.2)
        _settle(node, started)
        before = _census(node)
        ends += _load(node, seconds * 0.8)
        left = _settle(node, started)
        taken = time.monotonic() - begun
        after = _census(node)
        left += [
            f"{name} grew from {before[name]} to {count}"
            for name, count in after.items()
            if count > before[name] + SLACK[name]
        ]
        left += _unexpected(ends, mode)
        left += _unbalanced(node)
        left += _killed_daemons(node, started)
        found = verify(node.state_dir / "journal", parse_public(public_pem(node.state_dir)))
        left += [] if found.ok else [f"the journal is damaged: {found.first_bad}"]
    return Outcome(taken, ends, before, after, found.records, (*left, *_after_the_end(node)))


def _load(node: RunningDaemon, seconds: float) -> Counter[tuple[str, str]]:
    """Callers, each with acts in random order, and a reload now and then."""
    deadline = time.monotonic() + seconds
    ends: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def caller(seed: int) -> None:
        chance = random.Random(seed)
        with node.client() as client:
            while time.monotonic() < deadline:
                act = chance.choice(load.ACTS)
                end = load.play(act, client, node, chance)
                with lock:
                    ends[act.name, end] += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(caller, random.getrandbits(64)) for _ in range(CALLERS)]
        while futures.wait(callers, RELOAD_SECONDS, futures.FIRST_EXCEPTION).not_done:
            node.reload()
        for ended in callers:
            ended.result()  # raises what the caller did
    return ends


def _settle(node: RunningDaemon, started: leftovers.Leftovers) -> list[str]:
    return _eventually(lambda: leftovers.of_sandboxes(node).beyond(started))


def _eventually(left: Callable[[], dict[str, list[str]]]) -> list[str]:
    try:
        proc.until(lambda: not left(), "nothing is left")
    except AssertionError:
        return [f"{kind}: {', '.join(names)}" for kind, names in left().items()]
    return []


def _census(node: RunningDaemon) -> dict[str, int]:
    spawner = node.process.pid
    daemon = proc.daemon_pid(spawner)
    return {
        "daemon fds": leftovers.descriptors(daemon),
        "spawner fds": leftovers.descriptors(spawner),
        "spawner mounts": len(list(proc.mounts(spawner))),
        "processes": len(proc.descendants(spawner)),
        "cgroups": len(leftovers.cgroups(node)),
        "daemon MiB": proc.resident_bytes(daemon) // MIB,
        "spawner MiB": proc.resident_bytes(spawner) // MIB,
    }


def _unexpected(ends: Counter[tuple[str, str]], mode: Mode) -> list[str]:
    in_order = {
        act.name: act.in_order | ({"unenforceable"} if act.counted and mode is not Mode.ROOT else set())
        for act in load.ACTS
    }
    return [
        f"{act!r} ended {count} times with {end!r}" for (act, end), count in ends.items() if end not in in_order[act]
    ]


def _unbalanced(node: RunningDaemon) -> list[str]:
    """Every execution that was asked for has its end, or its refusal, on record, and only one."""
    asked: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for record in node.journal():
        ids = record["ids"]
        assert isinstance(ids, dict)
        asked[ids["execution_id"]] += record["rule"] == "execution.requested"
        ended[ids["execution_id"]] += record["rule"] in ENDS
    return [
        f"{execution_id} was asked for {count} times and has {ended[execution_id]} ends on record"
        for execution_id, count in asked.items()
        if execution_id and (count, ended[execution_id]) != (1, 1)
    ][:MOST_NAMED]


def _killed_daemons(node: RunningDaemon, started: leftovers.Leftovers) -> list[str]:
    """SIGKILL to the daemon in the middle of a load, several times over."""
    left = []
    for _ in range(DAEMON_KILLS):
        with ThreadPoolExecutor(1) as pool:
            load_ended = pool.submit(_load, node, 2.0)
            futures.wait([load_ended], 1.0)
            restart.kill(proc.daemon_pid(node.process.pid))
        load_ended.result()
        wait_until_it_answers(node)
        with node.client() as client:
            for execution in client.executions(living_only=True):
                _kill(client.kill, execution.execution_id)
        left += _settle(node, started)
    return left


def _kill(kill: Callable[[str], None], execution_id: str) -> None:
    with contextlib.suppress(SandboxdError):  # it has ended meanwhile
        kill(execution_id)


def _after_the_end(node: RunningDaemon) -> list[str]:
    """Once the spawner is gone: no process of its ids, none that names its files, no cgroup."""

    def left() -> dict[str, list[str]]:
        found = {
            "programs": [f"{p.pid} {' '.join(p.argv)}" for p in (*proc.anywhere(str(node.config)), *_of_our_ids())],
            "cgroups": [str(path) for path in leftovers.cgroups(node)],
        }
        return {kind: names for kind, names in found.items() if names}

    return _eventually(left)


def _of_our_ids() -> list[proc.Process]:
    found = []
    for process in proc.processes().values():
        try:
            uid = int(proc.status(process.pid)["Uid"].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if FIRST_ID <= uid < FIRST_ID + 65536:
            found.append(process)
    return found
