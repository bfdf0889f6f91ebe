"""A policy for the commands that look at one: read and proved exactly as the daemon does it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sandboxd.policy import rego
from sandboxd.policy.base import PolicyEngine
from sandboxd.settings.policy import Policy


def settings(paths: Sequence[Path], key: Path | None) -> Policy:
    """What a daemon would be configured with. No paths: the shipped policy."""
    return Policy(
        paths=tuple(str(path.absolute()) for path in paths),
        verification_key=None if key is None else str(key.absolute()),
    )


@asynccontextmanager
async def running(policy: Policy) -> AsyncIterator[PolicyEngine]:
    """An engine that has answered its samples; PolicyInvalid if it does not."""
    engine = await rego.create(policy)
    try:
        yield engine
    finally:
        await engine.close()
