"""Runs a program under one limit, or shows that this node refuses to because it cannot enforce it.

A refusal is an outcome too: it must name the guarantee, and the node's own capabilities must say the same. Used by the
limits tests and the resource attacks.
"""

from collections.abc import Mapping, Sequence

import pytest

from sandboxd.client import Client, Result, State, Unenforceable
from tests.skips import Lacks, because


def run_limited(
    client: Client,
    argv: Sequence[str],
    limits: Mapping[str, float],
    guarantee: str,
    *,
    profile: str = "default",
) -> Result:
    """The result under these limits; skips once it is shown that the node refuses for want of that guarantee."""
    try:
        return client.run(argv, limits=limits, profile=profile)
    except Unenforceable as refusal:
        assert guarantee in str(refusal), f"the refusal must name {guarantee}: {refusal}"
        rows = {row.guarantee: row for runtime in client.capabilities().runtimes for row in runtime.rows}
        assert rows[guarantee].state is not State.ENFORCED, "refused, although the node says that it enforces it"
        pytest.skip(because(Lacks.KERNEL, f"{guarantee} is {rows[guarantee].state} here: {rows[guarantee].reason}"))
