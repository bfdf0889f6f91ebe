"""The interleaved run: in each round everybody runs once, so that whatever else the machine does hits all alike.

Medians of different runs must never be compared with each other; ratios of one run may. Called by `__main__`.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.ours import Ours
from bench.peers import Peer
from bench.timing import Sample

PROGRAMS = (("/bin/true",), ("/usr/bin/python3", "-c", "print(1)"))
WARM_ROUNDS = 3
_SEED = 7  # of the order within the rounds


@dataclass(slots=True)
class Column:
    """What one runner did in a race, in milliseconds. `cpu` is per run; None where it was not told."""

    name: str
    totals: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    cpu: float | None = None
    cpus: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.totals.append(sample.total)
        if sample.first is not None:
            self.firsts.append(sample.first)
        if sample.cpu is not None:
            self.cpus.append(sample.cpu)

    @property
    def median(self) -> float:
        return statistics.median(self.totals)

    @property
    def cpu_each(self) -> float | None:
        return statistics.fmean(self.cpus) if self.cpus else self.cpu


def race(program: Sequence[str], peers: Sequence[Peer], nodes: Sequence[Ours], rounds: int, gap: float) -> list[Column]:
    """`gap` seconds of rest after each run: a node then completes its stock, and a peer's namespaces are cleaned up."""
    columns = [Column(name) for name in (*(node.name for node in nodes), *(peer.name for peer in peers))]
    before = [0.0 for _ in nodes]
    runners: list[Callable[[], Sample]] = [_executes(node, program) for node in nodes]
    runners += [_spawns(peer, program) for peer in peers]
    order = random.Random(_SEED)
    for number in range(-WARM_ROUNDS, rounds):
        if number == 0:
            before = [node.cpu() for node in nodes]
        # In another order each time: who always follows the same neighbour runs while that one is cleaned up.
        for index in order.sample(range(len(runners)), len(runners)):
            sample = runners[index]()
            if number >= 0:
                columns[index].add(sample)
            time.sleep(gap)
    for column, node, earlier in zip(columns, nodes, before, strict=False):
        column.cpu = (node.cpu() - earlier) / rounds
    return columns


def throughput(
    program: Sequence[str], peers: Sequence[Peer], nodes: Sequence[Ours], callers: int, count: int, rounds: int
) -> list[tuple[str, float]]:
    """Runs a second with that many at once, everybody in turn; the median of `rounds` turns."""
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for node in nodes:
            began = time.perf_counter()
            node.execute(program, count, callers)
            rates.setdefault(node.name, []).append(count / (time.perf_counter() - began))
            time.sleep(0.5)
        for peer in peers:
            with ThreadPoolExecutor(callers) as pool:
                began = time.perf_counter()
                list(pool.map(peer.run, [program] * count))
                rates.setdefault(peer.name, []).append(count / (time.perf_counter() - began))
            time.sleep(0.5)
    return [(name, statistics.median(found)) for name, found in rates.items()]


def _executes(node: Ours, program: Sequence[str]) -> Callable[[], Sample]:
    return lambda: node.execute(program)[0].sample()


def _spawns(peer: Peer, program: Sequence[str]) -> Callable[[], Sample]:
    return lambda: peer.run(program)
