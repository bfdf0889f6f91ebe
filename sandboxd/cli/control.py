"""The command `sandboxctl`: run programs on a node and look after what runs there, through the public client alone.

Each command imports what it needs when it is called. `run` stands here for the list of commands only: its own command
line is `run_options`, which `entry` calls first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sandboxd.cli import audit, policy, sandbox

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
approval_app = typer.Typer(
    name="approval", help="Decide about actions that policy leaves to people.", no_args_is_help=True
)
app.add_typer(approval_app)
app.add_typer(policy.app)
app.add_typer(audit.app)
app.add_typer(sandbox.app)

Address = Annotated[
    str | None,
    typer.Option(
        "--address", envvar="SANDBOXD_ADDRESS", metavar="ADDRESS", help="unix:PATH. Without one: the default socket."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="Approval id, as `approval list` shows it.")]
Comment = Annotated[str, typer.Option("--comment", "-m", metavar="TEXT", help="A word for the record.")]
ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="Execution id, as `ps` shows it.")]


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run(context: typer.Context) -> None:
    """Run a program in a fresh sandbox, as if it ran here; see `sandboxctl run --help`."""
    from sandboxd.cli.entry import run_main

    raise typer.Exit(run_main(context.args))


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


@approval_app.command("list")
def approval_list(
    approval_id: Annotated[str, typer.Argument(metavar="[ID]", help="Show all about this one.")] = "",
    pending: Annotated[bool, typer.Option("--pending", help="Only those that wait for votes.")] = False,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """List approvals that are open, oldest first; with an ID, show what there is to decide on."""
    from sandboxd.cli.approvals import show_approval, show_approvals

    with _client(address) as client:
        found = client.approvals(approval_id, pending_only=pending)
        if approval_id and found:
            show_approval(found[0], as_json=as_json)
        else:
            show_approvals(found, as_json=as_json)


@approval_app.command("watch")
def approval_watch(as_json: AsJson = False, address: Address = None) -> None:
    """Print what waits for people, then every change as it comes, a line each, until interrupted."""
    from sandboxd.cli.approvals import follow

    with _client(address) as client:
        follow(client.watch_approvals(), as_json=as_json)


@approval_app.command("approve")
def approval_approve(
    approval_id: ApprovalId, comment: Comment = "", as_json: AsJson = False, address: Address = None
) -> None:
    """Vote for it. Whoever asked cannot."""
    from sandboxd.cli.approvals import show_approvals

    with _client(address) as client:
        show_approvals([client.approve(approval_id, comment)], as_json=as_json)


@approval_app.command("deny")
def approval_deny(
    approval_id: ApprovalId, comment: Comment = "", as_json: AsJson = False, address: Address = None
) -> None:
    """Vote against it, which ends it. The agent is told the comment."""
    from sandboxd.cli.approvals import show_approvals

    with _client(address) as client:
        show_approvals([client.deny(approval_id, comment)], as_json=as_json)


@contextmanager
def _client(address: str | None) -> "Iterator[Client]":
    """A client; whatever fails within is said in one line, and exits 125."""
    from sandboxd.cli.ending import FAILED
    from sandboxd.cli.mistake import Mistake
    from sandboxd.cli.run import say
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
