"""`sandboxctl run`: feels like running the program itself. Streams, exit code and signals are the program's.

Whatever ends this process early ends the program too. Everything of sandboxd's own is said on stderr and exits 125.
"""

import signal
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sandboxd.cli import ending, outputs, streams
from sandboxd.cli.printable import printable
from sandboxd.client.errors import SandboxdError
from sandboxd.client.model import Accepted, Chunk, Options, Result, Stream
from sandboxd.client.request import Program
from sandboxd.client.stream import Whole
from sandboxd.client.sync import Client


@dataclass(frozen=True, slots=True)
class RunCommand:
    """What to run and what to do with what comes back."""

    address: str | None
    program: Program
    options: Options
    output_dir: Path | None
    as_json: bool
    explain: bool


def run(command: RunCommand) -> int:
    """Runs it to its end and gives the exit code for this process. `Mistake` if collected files cannot be written."""
    try:
        result = _follow(command)
        _after(command, result)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except SandboxdError as error:
        return _failed(command, error)
    return ending.exit_code(result)


def say(message: str) -> None:
    """A line of our own on stderr, which may hold names that a program chose. Lost if nobody reads stderr."""
    with suppress(OSError):
        streams.write(streams.STDERR, f"sandboxctl: {printable(message)}\n".encode(errors="backslashreplace"))


def _follow(command: RunCommand) -> Result:
    whole = Whole()
    with Client(command.address) as client, closing(client.execute(command.program, **command.options)) as events:
        for event in events:
            match event:
                case Accepted():
                    if client.version_warning:
                        say(client.version_warning)
                case Chunk() if not command.as_json:
                    streams.write(streams.STDOUT if event.stream is Stream.STDOUT else streams.STDERR, event.data)
                case _:
                    whole.add(event)
    return whole.result()


def _after(command: RunCommand, result: Result) -> None:
    for notice in ending.notices(result):
        say(notice)
    if command.output_dir is not None:
        outputs.write(command.output_dir, result.files)
    if command.as_json:
        from sandboxd.cli.explain import result_json

        streams.write(streams.STDOUT, result_json(result).encode() + b"\n")
    if command.explain:
        from sandboxd.cli.explain import explain

        explain(result)


def _failed(command: RunCommand, error: SandboxdError) -> int:
    if command.as_json:
        from sandboxd.cli.explain import error_json

        with suppress(BrokenPipeError):
            streams.write(streams.STDOUT, error_json(error).encode() + b"\n")
    say(f"{error.reason}: {error.message}")
    if error.message_for_agent and error.message_for_agent != error.message:
        say(f"for the agent: {error.message_for_agent}")
    return ending.FAILED
