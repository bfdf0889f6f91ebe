"""Turns what was measured into markdown tables on standard output. Measures nothing. Called by `__main__`."""

import math
import statistics
from collections.abc import Sequence

from bench.host import say
from bench.race import Column

BARE, BUBBLEWRAP = "posix_spawn", "bubblewrap"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    say("| " + " | ".join(header) + " |")
    say("|---" + "|---:" * (len(header) - 1) + "|")
    for row in rows:
        say("| " + " | ".join(row) + " |")
    say()


def races(program: Sequence[str], columns: Sequence[Column]) -> None:
    bare, peer = _median_of(columns, BARE), _median_of(columns, BUBBLEWRAP)
    rows = [
        (
            column.name,
            f"{column.median:.2f}",
            f"{percentile(column.totals, 0.25):.2f}",
            f"{percentile(column.totals, 0.95):.2f}",
            f"{statistics.median(column.firsts):.2f}" if column.firsts else "-",
            f"{column.median / bare:.2f}",
            f"{column.median / peer:.2f}" if peer else "-",
            "-" if column.cpu_each is None else f"{column.cpu_each:.2f}",
        )
        for column in sorted(columns, key=lambda column: column.median)
    ]
    say(f"### `{' '.join(program)}`, cold, {len(columns[0].totals)} rounds (milliseconds)\n")
    table(("", "median", "p25", "p95", "first byte", "/ bare", "/ bubblewrap", "CPU each"), rows)


def rates(program: Sequence[str], callers: int, found: Sequence[tuple[str, float]]) -> None:
    peer = next((rate for name, rate in found if name == BUBBLEWRAP), 0.0)
    say(f"### `{' '.join(program)}`, {callers} callers at once (runs a second)\n")
    rows = [(name, f"{rate:.0f}", f"{rate / peer:.2f}" if peer else "-") for name, rate in found]
    table(("", "runs/s", "/ bubblewrap"), rows)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.floor(len(values) * share))]


def _median_of(columns: Sequence[Column], name: str) -> float:
    return next((column.median for column in columns if column.name.partition(",")[0] == name), 0.0)
