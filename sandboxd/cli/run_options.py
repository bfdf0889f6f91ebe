"""The command line of `sandboxctl run`, read with argparse: typer and its pydantic cost longer than starting a program.

Everything after the first word that is no option belongs to the program. Called by `control`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sandboxd.cli import streams, values
from sandboxd.cli.ending import EXIT_CODES_HELP, FAILED
from sandboxd.cli.mistake import Mistake
from sandboxd.cli.run import RunCommand
from sandboxd.client.model import Code, Options

_DESCRIPTION = """Run a program in a fresh sandbox, as if it ran here. Standard input is sent along, whole, unless it is
a terminal; take it from /dev/null where it must not be read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # not 2, which a program may mean something by
        self.exit(FAILED, f"sandboxctl: {message}; see sandboxctl run --help\n")


def parse(arguments: Sequence[str]) -> RunCommand:
    """What to run; reads the files it names, and standard input. `Mistake` for a value that cannot be used."""
    found = parser().parse_args(arguments)
    argv: list[str] = found.argv[1:] if found.argv[:1] == ["--"] else found.argv
    if not argv:
        raise Mistake("no program to run; write: sandboxctl run [OPTION]... -- ARGV...")
    if found.collect and found.output_dir is None and not found.json:
        raise Mistake("--collect brings files back; say where with --output-dir DIR, or use --json")
    if found.code and len(argv) != 1:
        raise Mistake(f"--code takes one argument, the source, got {len(argv)}; quote it, or use -")
    source_on_stdin = bool(found.code) and argv == ["-"]
    options = Options(
        profile=found.profile,
        isolation=found.isolation,
        limits=values.limits(found.limit),
        env=values.environment(found.env),
        labels=values.labels(found.label),
        files=values.input_files(found.file),
        collect=found.collect,
        cwd=found.cwd,
        network=found.network,
    )
    if source_on_stdin:
        program: Code | list[str] = Code(streams.read_source(), found.code)
    else:
        options["stdin"] = streams.read_stdin()
        program = Code(argv[0], found.code) if found.code else argv
    return RunCommand(found.address, program, options, found.output_dir, found.json, found.explain)


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="sandboxctl run",
        usage="sandboxctl run [OPTION]... [--] ARGV...",
        description=_DESCRIPTION,
        epilog=EXIT_CODES_HELP,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("-p", "--profile", metavar="NAME", default="", help="profile of the node (default: its profile `default`)")
    add("--isolation", metavar="process|gvisor|kata", default="", help="at least this runtime")
    add(
        "--limit",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="tighter than the profile: memory=64MiB, wall=10s, cpus=0.5, pids=16",
    )
    add("-e", "--env", metavar="KEY=VALUE", action="append", default=[], help="variable that the profile lets you set")
    add("--file", metavar="HOST:PATH", action="append", default=[], help="copy a file of this machine to the workspace")
    add("--collect", metavar="GLOB", action="append", default=[], help="bring these files of the workspace back")
    add("--output-dir", metavar="DIR", type=Path, help="where --collect writes them")
    add("--cwd", metavar="DIR", default="", help="working directory inside the sandbox")
    add("--network", metavar="none|loopback", default="", help="not wider than the profile's")
    add("--label", metavar="KEY=VALUE", action="append", default=[], help="for policy, audit and listings")
    add(
        "--code",
        metavar="LANGUAGE",
        default="",
        help="ARGV is one argument, source text for this interpreter of the profile; `-` reads the source from standard"
        " input, and then the program's own input is empty",
    )
    add("--json", action="store_true", help="print one JSON object at the end instead of streaming")
    add("--explain", action="store_true", help="say afterwards on stderr why it ended and what enforced what")
    add("--address", metavar="ADDRESS", help="unix:PATH (default: $SANDBOXD_ADDRESS, else the default socket)")
    add("argv", metavar="ARGV", nargs=argparse.REMAINDER, help="the program and its arguments")
    return made
