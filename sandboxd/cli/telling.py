"""How a command says what went wrong: a line for each mistake on stderr, and exit code 125. Used by command groups."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def told() -> Iterator[None]:
    """Whatever is wrong with the command line, the node or its answer."""
    from sandboxd.cli.ending import FAILED
    from sandboxd.cli.mistake import Mistake
    from sandboxd.cli.run import say
    from sandboxd.client.errors import SandboxdError as Refusal
    from sandboxd.errors import SandboxdError

    try:
        yield
    except Refusal as error:
        say(f"{error.reason}: {error.message}")
        raise typer.Exit(FAILED) from error
    except (Mistake, SandboxdError) as error:
        for line in str(error).splitlines():
            say(line)
        raise typer.Exit(FAILED) from error
