"""`make bench`: a whole node beside bare programs and other sandboxes, in one interleaved run. See bench/README.md.

`python -m bench [--rounds N] [--modes root,rootless] [--only race,…] | --flame [--seconds N]`
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import decide, flame, host, peers, phases, record, report, watched
from bench.host import say
from bench.ours import Ours, ours
from bench.race import PROGRAMS, race, throughput
from tests.daemon import Mode

PARTS = ("race", "throughput", "memory", "phases", "decide", "audit", "watched")


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    say("\n".join(f"- {line}" for line in host.description()))
    if warned := host.warning():
        say(f"\n**{warned}**")
    say()
    with tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as name, contextlib.ExitStack() as nodes:
        running = [nodes.enter_context(ours(Mode(mode))) for mode in options.modes.split(",")]
        if options.flame:
            for node in running:
                flame.flame(node, options.seconds, options.output)
            return 0
        found, missing = peers.peers(Path(name))
        for sentence in missing:
            say(f"- {sentence}")
        say()
        _measure(options, found, running)
    if warned:
        say(f"**{warned}**")
    return 0


def _measure(options: argparse.Namespace, found: Sequence[peers.Peer], running: Sequence[Ours]) -> None:
    parts = options.only.split(",")
    if "memory" in parts:
        _memory(running)
    for program in PROGRAMS:
        if "race" in parts:
            report.races(program, race(program, found, running, options.rounds, options.gap))
    for program in PROGRAMS:
        if "throughput" in parts:
            few = [peer for peer in found if peer.name.startswith((report.BARE, report.BUBBLEWRAP))]
            rates = throughput(program, few, running, options.callers, options.rounds * 2, 3)
            report.rates(program, options.callers, rates)
    if "phases" in parts:
        for node in running:
            phases.timeline(node, PROGRAMS[0], options.rounds)
    if "decide" in parts:
        decide.decisions(running, options.rounds)
    if "audit" in parts:
        record.records(running, options.rounds)
    if "watched" in parts:
        for node in running:
            watched.watched(node.daemon.mode, PROGRAMS[0], options.rounds * 2, options.gap)


def _memory(running: Sequence[Ours]) -> None:
    rows = []
    for node in running:
        idle = node.idle()
        rows.append((node.name, str(len(idle)), f"{statistics.median(idle):.2f}" if idle else "-"))
    say("### Memory of an idle sandbox: PSS of its init and armed child (MB)\n")
    report.table(("", "in stock", "median"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="measure beside other sandboxes, in one run")
    parser.add_argument("--rounds", type=int, default=100, help="of each race (default: %(default)s)")
    parser.add_argument("--gap", type=float, default=0.03, help="seconds of rest after each run (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=8, help="of the throughput part (default: %(default)s)")
    modes = "root,rootless" if os.geteuid() == 0 else "rootless"
    parser.add_argument("--modes", default=modes, help="of the daemon (default: %(default)s)")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure (default: %(default)s)")
    parser.add_argument("--flame", action="store_true", help="sample where the time goes instead (py-spy)")
    parser.add_argument("--seconds", type=int, default=10, help="of sampling (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/flame"), help="for stacks (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
