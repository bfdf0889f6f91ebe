"""`make soak`: fuzzers, hostile events to a sink, sinks that fail, a daemon under load, and one killed again and again.

Prints figures; ends with 1 if a run found a fault.

`python -m bench.soak [fuzz [TARGET]... | falco | sinks | node | kill] [options]`; everything is the default.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.soak import falco, killed, node, sinks
from bench.soak.campaign import campaign
from bench.soak.planted import Planted
from bench.soak.target import NAMES

CPU_SECONDS = 600.0
NODE_SECONDS = 600.0
FALCO_EVENTS = 100_000
FALCO_KILLS = 20
DAEMON_KILLS = 200
SINK_EVENTS = 200_000


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    good = True
    if options.what in ("all", "fuzz"):
        for name in options.targets or NAMES:
            good &= _fuzz(name, options.cpu_seconds, options.keep, plant=options.planted)
    if options.what in ("all", "falco"):
        good &= _falco(options.events, options.kills)
    if options.what in ("all", "sinks"):
        good &= _sinks(options.sink_events, options.rate)
    if options.what in ("all", "node"):
        good &= _node(options.seconds, options.mode)
    if options.what in ("all", "kill"):
        good &= _killed(options.daemon_kills, options.mode)
    return 0 if good else 1


def _fuzz(name: str, cpu_seconds: float, kept: Path | None, *, plant: bool) -> bool:
    figures = campaign(name, cpu_seconds, kept, plant=plant)
    _say(figures.line())
    for crash in figures.crashes:
        _say(f"  {crash.kind} at {crash.where}, {crash.count} times: {crash.message}\n  input {crash.data}")
    return [crash.kind for crash in figures.crashes] == ([Planted.__name__] if plant else [])


def _falco(events: int, kills: int) -> bool:
    outcome = falco.soak(events, kills)
    for line in outcome.lines():
        _say(line)
    return not outcome.left


def _sinks(events: int, per_second: float) -> bool:
    outcome = sinks.soak(events, per_second)
    for line in outcome.lines():
        _say(line)
    return not outcome.wrong


def _node(seconds: float, mode: str) -> bool:
    outcome = node.soak(seconds, node.Mode(mode))
    for line in outcome.lines():
        _say(line)
    return not outcome.left


def _killed(kills: int, mode: str) -> bool:
    good = True
    for outcome in killed.killed(kills, node.Mode(mode)):
        for line in outcome.lines():
            _say(line)
        good &= not outcome.left
    return good


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="fuzz every parser, then soak a daemon")
    parser.add_argument("what", nargs="?", choices=("all", "fuzz", "falco", "sinks", "node", "kill"), default="all")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; default: each")
    parser.add_argument("--cpu-seconds", type=float, default=CPU_SECONDS, help="for each target (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="begin with the corpus there, and leave it there")
    parser.add_argument(
        "--planted", action="store_true", help="plant a bug in each target: not to find it is a failure"
    )
    parser.add_argument("--events", type=int, default=FALCO_EVENTS, help="hostile ones (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=FALCO_KILLS, help="of the port meanwhile (default: %(default)s)")
    parser.add_argument("--sink-events", type=int, default=SINK_EVENTS, help="for each sink (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=400.0, help="of these in a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=NODE_SECONDS, help="of load (default: %(default)s)")
    parser.add_argument("--daemon-kills", type=int, default=DAEMON_KILLS, help="under load (default: %(default)s)")
    parser.add_argument("--mode", choices=[str(mode) for mode in node.Mode], default=str(node.Mode.ROOT))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
