"""`sandboxctl policy`: what comes before a policy decides anything here, and what is in force now.

`test`, `check` and `replay` need no daemon. Each command imports what it needs when it is called.
"""

from pathlib import Path
from typing import Annotated

import typer

from sandboxd.cli.telling import told

app = typer.Typer(name="policy", help="Try a policy before it decides, and see which one does.", no_args_is_help=True)

Bundles = Annotated[
    list[Path] | None,
    typer.Option("--policy", "-p", metavar="PATH", help="Directory, .rego file or bundle. Without one: the shipped."),
]
Key = Annotated[
    Path | None, typer.Option("--verification-key", metavar="FILE", help="Public key (PEM) that signed the bundle.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def test(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Directory, .rego file or bundle. Default: shipped."),
    ] = None,
    verification_key: Key = None,
) -> None:
    """Run a policy's own tests in the embedded engine and, if it is there, in `opa`; exit 1 if one fails.

    It is also a failure if the two do not agree, or if there are no tests.
    """
    from sandboxd.cli.policy_tests import run

    with told():
        raise typer.Exit(run(paths or (), verification_key))


@app.command()
def check(
    action: Annotated[
        Path, typer.Argument(metavar="ACTION.json", help="An input of policy: policies/schemas/input.json.")
    ],
    policy: Bundles = None,
    verification_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Explain what a policy decides for one input, and which of its rules hold. Decides nothing that happens."""
    from sandboxd.cli.policy_check import explain

    with told():
        explain(action, policy or (), verification_key, as_json=as_json)


@app.command()
def replay(
    bundle: Annotated[list[Path], typer.Option("--bundle", "-b", metavar="NEW", help="The policy to decide again by.")],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="How far back: 90m, 12h, 7d.")] = "7d",
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", metavar="DIR", help="The node's state. Default: as for `sandboxd serve`."),
    ] = None,
    verification_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Decide what is on record again under another policy, and print what would change; exit 1 if anything would."""
    from sandboxd.cli.policy_replay import run

    with told():
        raise typer.Exit(run(bundle, since, state_dir, verification_key, as_json=as_json))


@app.command()
def show(
    as_json: AsJson = False,
    address: Annotated[
        str | None,
        typer.Option("--address", envvar="SANDBOXD_ADDRESS", metavar="ADDRESS", help="As for the other commands."),
    ] = None,
) -> None:
    """Show the policy that decides on the node, whether the last reload took place, and how its shadow does."""
    from sandboxd.cli.policy_show import show_policy
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        show_policy(client.policy(), as_json=as_json)
