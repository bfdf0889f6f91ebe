"""Entry points of both commands. `sandboxctl run` takes a path of its own, past typer, to start fast.

Imports nothing by itself but the standard library.
"""

import os
import signal
import sys
from collections.abc import Sequence


def sandboxd_main() -> None:
    if sys.argv[1:2] == ["serve"]:
        # What becomes the spawner takes it for a reload; until it can, the signal waits, also across that change.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from sandboxd.cli.node import app

    app()


def sandboxctl_main() -> None:
    # grpc's own log would stand between the lines of the program
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if sys.argv[1:2] == ["run"]:
        status = run_main(sys.argv[2:])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # tearing down the interpreter and grpc would cost the caller time
    from sandboxd.cli.control import app

    app()


def run_main(arguments: Sequence[str]) -> int:
    """`sandboxctl run`, whole; gives the exit code. Signals count from here on, while the rest is still imported."""
    from sandboxd.cli import streams

    streams.exit_on_signals()
    from sandboxd.cli import ending
    from sandboxd.cli.mistake import Mistake
    from sandboxd.cli.run import run, say
    from sandboxd.cli.run_options import parse

    try:
        return run(parse(arguments))
    except Mistake as mistake:
        say(str(mistake))
        return ending.FAILED
