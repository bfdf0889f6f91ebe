"""The command `sandboxctl`: run programs on a node and look after what runs there, through the public client alone.

Each command imports what it needs when it is called, since `run` should start as fast as the program it stands for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sandboxd.client.sync import Client

app = typer.Typer(
    name="sandboxctl",
    help="Run programs in the sandboxes of a sandboxd node. An exit code of 2 is wrong usage, 125 a failure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
profile_app = typer.Typer(name="profile", help="Look at the node's profiles.", no_args_is_help=True)
app.add_typer(profile_app)

Address = Annotated[
    str | None,
    typer.Option(
        "--address", envvar="SANDBOXD_ADDRESS", metavar="ADDRESS", help="unix:PATH. Without one: the default socket."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="Execution id, as `ps` shows it.")]

RUN_HELP = """Run a program in a fresh sandbox, as if it ran here.

Standard input is sent along, whole, unless it is a terminal; take it from /dev/null where it must not be read.
With --code the one argument is source text for an interpreter of the profile; `-` reads the source from standard input,
and the program's own input is then empty.

"""


def main() -> None:
    # grpc's own log would stand between the lines of the program
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


def _run_help() -> str:
    from sandboxd.cli.ending import EXIT_CODES_HELP

    return RUN_HELP + EXIT_CODES_HELP


@app.command(help=_run_help(), context_settings={"allow_interspersed_args": False})
def run(
    argv: Annotated[list[str], typer.Argument(metavar="ARGV...", help="The program and its arguments.")],
    profile: Annotated[str, typer.Option("--profile", "-p", metavar="NAME")] = "",
    isolation: Annotated[str, typer.Option(metavar="process|gvisor|kata", help="At least this runtime.")] = "",
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Tighter than the profile: memory=64MiB, wall=10s, cpus=0.5, pids=16."),
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE")] = None,
    file: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PATH", help="Copy a file of this machine into the workspace.")
    ] = None,
    collect: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Files of the workspace to bring back afterwards.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where collected files are written.")] = None,
    cwd: Annotated[str, typer.Option(metavar="DIR", help="Working directory inside the sandbox.")] = "",
    network: Annotated[str, typer.Option(metavar="none|loopback")] = "",
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="For policy and audit.")] = None,
    code: Annotated[str, typer.Option(metavar="LANGUAGE", help="ARGV is source text in this language.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead.")] = False,
    explain: Annotated[bool, typer.Option(help="Say afterwards on stderr what enforced what.")] = False,
    address: Address = None,
) -> None:
    from sandboxd.cli import ending, streams, values

    try:
        with streams.interruptible():
            from sandboxd.cli.run import RunCommand, say
            from sandboxd.cli.run import run as run_command
            from sandboxd.client.model import Code, Options

            try:
                if collect and output_dir is None and not as_json:
                    raise values.Mistake("--collect brings files back; say where with --output-dir DIR, or use --json")
                if code and len(argv) != 1:
                    raise values.Mistake(f"--code takes one argument, the source, got {len(argv)}; quote it, or use -")
                from_stdin = bool(code) and argv == ["-"]
                source = streams.read_source() if from_stdin else argv[0]
                options = Options(
                    profile=profile,
                    isolation=isolation,
                    limits=values.limits(limit or ()),
                    env=values.environment(env or ()),
                    labels=values.labels(label or ()),
                    files=values.input_files(file or ()),
                    collect=collect or (),
                    cwd=cwd,
                    network=network,
                    stdin=b"" if from_stdin else streams.read_stdin(),
                )
                program = Code(source, code) if code else argv
                status = run_command(RunCommand(address, program, options, output_dir, as_json, explain))
            except values.Mistake as mistake:
                say(str(mistake))
                status = ending.FAILED
    except streams.Interrupted as interrupted:
        status = 128 + interrupted.signum
    raise typer.Exit(status)


@app.command()
def ps(
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Also those that have ended.")] = False,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """List executions, newest first."""
    from sandboxd.cli.listing import show_executions

    with _client(address) as client:
        show_executions(client.executions(living_only=not show_all), as_json=as_json)


@app.command()
def logs(execution_id: ExecutionId, address: Address = None) -> None:
    """Print what the node has kept of an execution's output: stdout to stdout, stderr to stderr."""
    from sandboxd.cli import streams

    with _client(address) as client:
        kept = client.logs(execution_id)
        streams.write(streams.STDOUT, kept.stdout)
        streams.write(streams.STDERR, kept.stderr)


@app.command()
def kill(
    execution_id: ExecutionId,
    signal_name: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="Send this signal instead: TERM, SIGTERM or 15.")
    ] = "",
    address: Address = None,
) -> None:
    """Kill an execution's whole process tree."""
    from sandboxd.cli.values import signal_number

    with _client(address) as client:
        client.kill(execution_id, signal_number(signal_name) if signal_name else None)


@app.command()
def version(as_json: AsJson = False, address: Address = None) -> None:
    """Print the versions of this command and of the node."""
    from sandboxd.cli.listing import show_version

    with _client(address) as client:
        show_version(client.capabilities(), as_json=as_json)


@profile_app.command("list")
def profile_list(as_json: AsJson = False, address: Address = None) -> None:
    """List the profiles that requests may name."""
    from sandboxd.cli.listing import show_profiles

    with _client(address) as client:
        show_profiles(client.profiles(), as_json=as_json)


@profile_app.command("show")
def profile_show(
    name: Annotated[str, typer.Argument(metavar="NAME")], as_json: AsJson = False, address: Address = None
) -> None:
    """Show one profile as the node resolved it; --json prints the whole specification."""
    from sandboxd.cli.listing import show_profile

    with _client(address) as client:
        show_profile(client.profile(name), as_json=as_json)


@contextmanager
def _client(address: str | None) -> "Iterator[Client]":
    """A client; whatever fails within is said in one line, and exits 125."""
    from sandboxd.cli.ending import FAILED
    from sandboxd.cli.run import say
    from sandboxd.cli.values import Mistake
    from sandboxd.client.errors import SandboxdError
    from sandboxd.client.sync import Client

    try:
        with Client(address) as client:
            yield client
            if client.version_warning:
                say(client.version_warning)
    except SandboxdError as error:
        say(f"{error.reason}: {error.message}")
        raise typer.Exit(FAILED) from error
    except Mistake as mistake:
        say(str(mistake))
        raise typer.Exit(FAILED) from mistake
