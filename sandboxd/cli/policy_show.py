"""`sandboxctl policy show`: the policy that decides on a node, as a table or as JSON."""

import dataclasses
import json

from sandboxd.cli import tables
from sandboxd.client.policy import Policy, ShadowPolicy


def show_policy(policy: Policy, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(policy), default=str, indent=2))  # noqa: T201
        return
    rows = [("engine", policy.engine), ("revision", policy.revision)]
    if policy.version:
        rows.append(("release", str(policy.version)))
    rows.append(("decides since", str(policy.since or "-")))
    if policy.breaker:
        rows.append(("circuit breaker", policy.breaker))
    if policy.reload_error:
        rows.append(("last reload failed", f"{policy.reload_failed_at or '-'}: {policy.reload_error}"))
    if policy.shadow is not None:
        rows.append(("shadow", _shadow(policy.shadow)))
    tables.show("", ("", ""), rows)
    if policy.files:
        tables.show("what it was read from", ("file", "SHA-256"), policy.files)


def _shadow(shadow: ShadowPolicy) -> str:
    if shadow.error:
        return f"cannot be loaded: {shadow.error}"
    return (
        f"{shadow.revision}: {shadow.compared} compared, {shadow.differed} differed, {shadow.failed} not answered, "
        f"{shadow.dropped} dropped"
    )
