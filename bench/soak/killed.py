"""A real daemon, killed with SIGKILL at random moments under load: does its journal verify, and hold what it told?

Half of the kills for each durability. Started by `__main__`.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tests import acknowledged, restart
from tests.acknowledged import Told
from tests.daemon import Mode, start_daemon

SETTINGS = """\
audit: {{checkpoint_seconds: 1, segment_bytes: 65536, durability: {}}}
drain_grace_seconds: 5
log: {{level: warning}}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    durability: str
    seed: int
    kills: int
    torn: int  # kills in the middle of a write
    told: Told
    records: int
    checkpoints: int
    seconds: float
    left: tuple[str, ...]

    def lines(self) -> list[str]:
        return [
            f"kill, {self.durability}, seed {self.seed}: {self.kills} kills in {self.seconds:.0f} s, "
            f"{self.torn} within a line; {len(self.told.accepted)} executions accepted, {len(self.told.ended)} ended, "
            f"{self.told.refused} calls failed; {self.records} records, {self.checkpoints} checkpoints",
            *(f"  LEFT: {sentence}" for sentence in self.left or ("nothing",)),
        ]


def killed(kills: int, mode: Mode) -> Iterator[Outcome]:
    for durability in ("write", "fsync"):
        yield _killed(kills // 2, mode, durability, random.randrange(1 << 32))


def _killed(kills: int, mode: Mode, durability: str, seed: int) -> Outcome:
    told, chance, left, torn = Told(), random.Random(seed), list[str](), 0
    begun = time.monotonic()
    with start_daemon(mode, SETTINGS.format(durability)) as node, ExitStack() as lives:
        for number in range(1, kills + 1):
            found = acknowledged.kill_once(node, told, chance)
            torn += found.torn_bytes > 0
            if not found.ok:
                left.append(f"after kill {number}: {found.first_bad}")
            restart.kill_spawner(node)  # it would wait longer each time before it starts the daemon again
            node = lives.enter_context(restart.restarted(node))
        found = acknowledged.checked(node)
        left += [] if found.ok else [f"at the end: {found.first_bad}"]
        left += acknowledged.not_on_record(node, told)
    seconds = time.monotonic() - begun
    return Outcome(durability, seed, kills, torn, told, found.records, found.checkpoints, seconds, tuple(left))
