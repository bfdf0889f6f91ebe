"""Where the time of one Execute goes, by the journal's own times and the caller's: no instrument in the daemon.

Both clocks are this machine's wall clock, so the parts can be put in one row. Called by `__main__`.
"""

import itertools
import statistics
from collections.abc import Sequence
from datetime import datetime

from bench import report
from bench.host import say
from bench.ours import Ours, Run

_EVENTS = ("execution.requested", "policy.decided", "execution.started", "execution.ended")
_PARTS = (
    ("request → on record", "client, relay, gRPC, conversion, admission"),
    ("on record → decided", "profile, policy, input stored"),
    ("decided → started", "plan, blank fitted out, descriptors handed over"),
    ("started → ended on record", "program placed, filter, execve, its run, its tree killed"),
    ("ended → caller has it", "usage, stream, relay, client"),
)


def timeline(node: Ours, program: Sequence[str], count: int) -> None:
    """Print the median of each part over `count` executions."""
    runs = {run.execution_id: run for run in node.execute(program, count)}
    times: dict[str, dict[str, int]] = {}
    for record in node.daemon.journal():
        ids, name = record.get("ids"), str(record.get("rule"))
        if isinstance(ids, dict) and ids.get("execution_id") in runs and name in _EVENTS:
            times.setdefault(str(ids["execution_id"]), {})[name] = _nanoseconds(str(record["time"]))
    parts = [_parts(runs[key], found) for key, found in times.items() if len(found) == len(_EVENTS)]
    if not parts:
        raise SystemExit("the journal has no whole execution of this run")
    rows = [
        (name, f"{statistics.median(part[index] for part in parts):.2f}", what)
        for index, (name, what) in enumerate(_PARTS)
    ]
    say(f"### One Execute of `{' '.join(program)}` in parts, {node.name}, median of {len(parts)} (milliseconds)\n")
    report.table(("part", "ms", "what happens"), rows)


def _parts(run: Run, found: dict[str, int]) -> list[float]:
    at = [run.began, *(found[name] for name in _EVENTS), run.began + int(run.total * 1e6)]
    return [(later - earlier) / 1e6 for earlier, later in itertools.pairwise(at)]


def _nanoseconds(text: str) -> int:
    whole = datetime.fromisoformat(text[:19] + "+00:00")
    return int(whole.timestamp()) * 1_000_000_000 + int(text[20:29])
