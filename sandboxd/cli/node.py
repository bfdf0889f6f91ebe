"""The command `sandboxd`: start a node, look whether it can do its work, check its configuration, read its record.

Runs on the node itself and needs no running daemon. Called by `entry`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sandboxd.config import Config

EX_CONFIG = 78  # of sysexits.h; tells a service manager that starting again mends nothing

app = typer.Typer(
    name="sandboxd",
    help="Node daemon that runs the code of AI agents: decided by policy, confined by profile, recorded by audit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(name="config", help="Look after the configuration file.", no_args_is_help=True)
app.add_typer(config_app)
audit_app = typer.Typer(name="audit", help="Read what this node has on record.", no_args_is_help=True)
app.add_typer(audit_app)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration (YAML). Without one: all defaults.")
]


@app.command()
def serve(config: ConfigFile = None) -> None:
    """Start the daemon in the foreground. SIGTERM drains it, SIGHUP reloads profiles and policies.

    Exit code 78: the configuration, a profile or a policy is wrong, and starting again would not mend that.
    """
    from sandboxd.cli.serve import become_spawner

    become_spawner(_loaded(config, EX_CONFIG), config)


@app.command()
def check(
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell what this node can enforce and what follows from what it cannot.

    Exit code 0: every profile can be enforced. 1: something that one of them requires is missing. 2: nothing can run.
    78: the configuration is wrong. What `--json` prints is described in docs/check.md.
    """
    from sandboxd.cli.check import report

    raise typer.Exit(report(_loaded(config, EX_CONFIG), as_json=as_json))


@config_app.command()
def validate(file: Annotated[Path | None, typer.Argument(metavar="FILE")] = None) -> None:
    """Check a configuration file; without one, the defaults. A wrong one exits 1 and names the line of each mistake."""
    loaded = _loaded(file)
    typer.echo(f"valid: {file or 'defaults'}: listens at unix:{loaded.socket_path}, keeps state in {loaded.state_dir}")


@audit_app.command()
def show(
    digest: Annotated[str, typer.Argument(metavar="SHA256", help="What an event has as its `input_sha256`.")],
    config: ConfigFile = None,
) -> None:
    """Print the document that an event names: what was asked for, or what policy decided on. JSON in plain ASCII."""
    from sandboxd.cli.documents import document
    from sandboxd.cli.mistake import Mistake

    try:
        typer.echo(document(Path(_loaded(config).state_dir), digest))
    except Mistake as mistake:
        typer.echo(f"sandboxd: {mistake}", err=True)
        raise typer.Exit(1) from mistake


@audit_app.command()
def key(config: ConfigFile = None) -> None:
    """Print the public key of this node's journal (PEM): what `sandboxctl audit verify --public-key` takes.

    Keep it elsewhere: whoever can write to the state directory could put another one there.
    """
    from sandboxd.cli.documents import public_key
    from sandboxd.cli.mistake import Mistake

    try:
        typer.echo(public_key(Path(_loaded(config).state_dir)), nl=False)
    except Mistake as mistake:
        typer.echo(f"sandboxd: {mistake}", err=True)
        raise typer.Exit(1) from mistake


def _loaded(path: Path | None, failed: int = 1) -> "Config":
    """The configuration; if it is wrong, each mistake on a line of its own, and that exit code."""
    from sandboxd.config import load
    from sandboxd.errors import ConfigInvalid

    try:
        return load(path)
    except ConfigInvalid as error:
        for line in error.message.splitlines():
            typer.echo(f"sandboxd: {line}", err=True)
        raise typer.Exit(failed) from error
