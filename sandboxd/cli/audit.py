"""`sandboxctl audit`: look things up in a node's record, follow it, prove that it is whole, see how its sinks do.

`verify PATH` and `query --journal DIR` need no node. Each command imports what it needs when it is called.
"""

from pathlib import Path
from typing import Annotated

import typer

from sandboxd.cli.telling import told

app = typer.Typer(
    name="audit",
    help="Read what a node has on record, and prove that it is whole. For operators.",
    no_args_is_help=True,
)

Address = Annotated[
    str | None,
    typer.Option("--address", envvar="SANDBOXD_ADDRESS", metavar="ADDRESS", help="As for the other commands."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="From then on: 90m, 12h, 7d ago, or ISO 8601.")]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Before then.")]
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose.")]
Execution = Annotated[str, typer.Option("--execution", "-e", metavar="ID", help="Of this execution.")]
Sandbox = Annotated[str, typer.Option("--sandbox", metavar="ID", help="Of this sandbox.")]
Rule = Annotated[str, typer.Option("--rule", "-r", metavar="RULE", help="As policy.decided, or policy.* for several.")]
Verdict = Annotated[str, typer.Option("--verdict", metavar="VERDICT", help="Events that hold it: deny, escalate, …")]
Priority = Annotated[str, typer.Option("--priority", metavar="PRIORITY", help="This and the more urgent: warning.")]
Text = Annotated[str, typer.Option("--text", "-t", metavar="TEXT", help="What a value contains, capitals or not.")]


@app.command()
def query(
    since: Since = "",
    until: Until = "",
    tenant: Tenant = "",
    execution: Execution = "",
    sandbox: Sandbox = "",
    rule: Rule = "",
    verdict: Verdict = "",
    priority: Priority = "",
    text: Text = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many records.")] = 100,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Instead of newest first.")] = False,
    page: Annotated[str, typer.Option("--page", metavar="PAGE", help="Go on where an earlier query ended.")] = "",
    journal: Annotated[
        Path | None, typer.Option("--journal", metavar="DIR", help="Read this directory, or a copy, and ask no node.")
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Print the records that meet every condition, a line each; --json prints the journal's own lines.

    Exit code 1: a place was come by that does not hold what was written there; it is named on stderr.
    """
    from sandboxd.cli.audit_query import query_directory, query_node, wanted
    from sandboxd.client.sync import Client

    with told():
        asked = wanted(since, until, tenant, execution, sandbox, rule, verdict, priority, text)
        if journal is not None:
            raise typer.Exit(query_directory(journal, asked, limit, page, oldest_first=oldest_first, as_json=as_json))
        with Client(address) as client:
            raise typer.Exit(query_node(client, asked, limit, page, oldest_first=oldest_first, as_json=as_json))


@app.command()
def tail(
    from_seq: Annotated[
        int | None, typer.Option("--from", min=0, metavar="SEQ", help="From this record on; 0 is the oldest.")
    ] = None,
    tenant: Tenant = "",
    execution: Execution = "",
    sandbox: Sandbox = "",
    rule: Rule = "",
    verdict: Verdict = "",
    priority: Priority = "",
    text: Text = "",
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Print records as they are written, until interrupted; with --from, first those that are there.

    If the node goes down it says from where to go on.
    """
    from sandboxd.cli.audit_query import tail_node, wanted
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        asked = wanted("", "", tenant, execution, sandbox, rule, verdict, priority, text)
        tail_node(client, asked, from_seq, as_json=as_json)


@app.command()
def verify(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="A journal's directory, or a copy. Without one: ask the node."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", "-k", metavar="FILE", help="What `audit key` printed, kept elsewhere."),
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Check every record, the chain and the signed checkpoints; name the first bad record and what is wrong with it.

    Exit code 0: all is as it was written. 1: it is not. 125: that cannot be told.
    """
    from sandboxd.cli.audit_verify import of_directory, of_node
    from sandboxd.client.sync import Client

    with told():
        if path is not None:
            raise typer.Exit(of_directory(path, public_key, as_json=as_json))
        with Client(address) as client:
            raise typer.Exit(of_node(client, public_key, as_json=as_json))


@app.command()
def sinks(as_json: AsJson = False, address: Address = None) -> None:
    """Show how each sink does: what it has taken, how far behind it is, and its last error."""
    from sandboxd.cli.audit_show import show_sinks
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        show_sinks(client.audit_sinks(), as_json=as_json)


@app.command()
def key(as_json: AsJson = False, address: Address = None) -> None:
    """Print the public key that the node signs its journal with. Keep it elsewhere, for `audit verify --public-key`."""
    from sandboxd.cli.audit_show import show_key
    from sandboxd.client.sync import Client

    with told(), Client(address) as client:
        show_key(client.audit_key(), as_json=as_json)
