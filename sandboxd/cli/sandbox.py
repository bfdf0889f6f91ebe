"""`sandboxctl sandbox`: what operators do about incidents. Each command imports what it needs when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandboxd.cli.telling import told

if TYPE_CHECKING:
    from sandboxd.client.response import Measure

app = typer.Typer(name="sandbox", help="Answer incidents: for operators of the node.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="[ID]", help="Of an execution, as `ps` shows it, or of its sandbox.")]
Tenant = Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Instead of an ID: all of that tenant.")]
Subject = Annotated[
    str, typer.Option("--subject", metavar="SUBJECT", help="Instead of an ID: all of that caller, such as uid:1000.")
]
Comment = Annotated[str, typer.Option("--comment", "-m", metavar="TEXT", help="A word for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", envvar="SANDBOXD_ADDRESS", metavar="ADDRESS", help="unix:PATH. Without one: the default socket."
    ),
]


@app.command()
def freeze(
    target: Id = "",
    tenant: Tenant = "",
    subject: Subject = "",
    comment: Comment = "",
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Have it stand still. Its wall deadline goes on, and may end it."""
    from sandboxd.client.response import Measure

    _respond(Measure.FREEZE, target, tenant, subject, comment, address, as_json=as_json)


@app.command()
def thaw(
    target: Id = "",
    tenant: Tenant = "",
    subject: Subject = "",
    comment: Comment = "",
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Let it go on."""
    from sandboxd.client.response import Measure

    _respond(Measure.THAW, target, tenant, subject, comment, address, as_json=as_json)


@app.command()
def kill(
    target: Id = "",
    tenant: Tenant = "",
    subject: Subject = "",
    comment: Comment = "",
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """End it whole, frozen or not."""
    from sandboxd.client.response import Measure

    _respond(Measure.KILL, target, tenant, subject, comment, address, as_json=as_json)


@app.command()
def quarantine(
    target: Id = "",
    tenant: Tenant = "",
    subject: Subject = "",
    comment: Comment = "",
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Freeze and keep every sandbox of whoever owns it, and deny that owner everything else until it is lifted."""
    from sandboxd.client.response import Measure

    _respond(Measure.QUARANTINE, target, tenant, subject, comment, address, as_json=as_json)


@app.command()
def lift(
    target: Id = "",
    tenant: Tenant = "",
    subject: Subject = "",
    comment: Comment = "",
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """End a quarantine, and let go on what was frozen with it."""
    from sandboxd.client.response import Measure

    _respond(Measure.LIFT, target, tenant, subject, comment, address, as_json=as_json)


@app.command()
def quarantines(as_json: AsJson = False, address: Address = None) -> None:
    """List the quarantines in force, oldest first."""
    from sandboxd.cli.responses import show_quarantines
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        show_quarantines(client.quarantines(), as_json=as_json)


@app.command()
def forensics(
    target: Annotated[str, typer.Argument(metavar="ID", help="Of an execution, or of its sandbox.")],
    directory: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Made by this command; it must not exist.")
    ],
    workspace_bytes: Annotated[
        int, typer.Option("--workspace-bytes", metavar="N", help="At most so much of the workspace.", min=0)
    ] = 0,
    address: Address = None,
) -> None:
    """Take evidence of a living sandbox, frozen or not: events, processes, workspace, mounts, limits, enforcement."""
    from sandboxd.cli.forensics import collect
    from sandboxd.cli.responses import named
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        collect(client, named(client, target, "", ""), directory, workspace_bytes)


def _respond(
    measure: "Measure", target: str, tenant: str, subject: str, comment: str, address: str | None, *, as_json: bool
) -> None:
    from sandboxd.cli.responses import named, show_effects
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        show_effects(client.respond(measure, named(client, target, tenant, subject), comment), as_json=as_json)
