"""`sandboxctl policy check`: one decision, explained.

Shows what the caller would be told and where the rules stand that hold, but no value that they work with: a policy's
data may be of every tenant.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sandboxd.cli import tables
from sandboxd.cli.mistake import Mistake
from sandboxd.cli.policy_engine import running, settings
from sandboxd.model import Decision
from sandboxd.policy.document import MAX_DOCUMENT_BYTES, PolicyInput
from sandboxd.policy.input_check import read_input
from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.policy.rego_rules import Rule, holding
from sandboxd.settings.policy import Policy


def explain(action: Path, paths: Sequence[Path], key: Path | None, *, as_json: bool) -> None:
    """Prints it. InvalidRequest with a line for each thing that is wrong with the input; PolicyInvalid."""
    document = _read(action)
    policy = settings(paths, key)
    decision = asyncio.run(_decide(policy, document))
    bundle = read_bundle(policy.bundle_paths, policy.key_path)
    rules = holding(bundle.modules, bundle.data_json, document)
    if as_json:
        print(json.dumps(_told(decision, rules), indent=2))  # noqa: T201
    else:
        _show(decision, rules)


async def _decide(policy: Policy, document: bytes) -> Decision:
    async with running(policy) as engine:
        return await engine.decide(PolicyInput(document))


def _read(path: Path) -> bytes:
    """The input as an engine is given it, once it is seen to be one."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise Mistake(f"cannot read {os.fspath(path)!r}: {error.strerror}; name a readable file") from error
    return read_input(os.fspath(path), content)


def _told(decision: Decision, rules: Sequence[Rule]) -> dict[str, object]:
    return {
        "verdict": decision.verdict,
        "reasons": [asdict(reason) for reason in decision.reasons],
        "message_for_agent": decision.message_for_agent,
        "obligations": asdict(decision.obligations),
        "ttl_seconds": decision.ttl_seconds,
        "revision": decision.revision,
        "rules": [{"file": rule.path, "line": rule.line, "rule": rule.full_name} for rule in rules],
    }


def _show(decision: Decision, rules: Sequence[Rule]) -> None:
    rows = [("verdict", decision.verdict.value), ("revision", decision.revision)]
    rows.extend(("reason", f"{reason.code}: {reason.message}") for reason in decision.reasons)
    if decision.message_for_agent:
        rows.append(("message for the agent", decision.message_for_agent))
    rows.extend((f"limit {name}", f"{value:g}") for name, value in decision.obligations.limits)
    if decision.obligations.runtime_floor is not None:
        rows.append(("runtime, at least", decision.obligations.runtime_floor.value))
    if decision.obligations.redact:
        rows.append(("redacts", ", ".join(decision.obligations.redact)))
    if decision.obligations.approval is not None:
        rows.append(("approval", json.dumps(asdict(decision.obligations.approval))))
    if decision.ttl_seconds:
        rows.append(("may be taken again for", f"{decision.ttl_seconds:g} s"))
    tables.show("what is decided", ("", ""), rows)
    places = [(f"{rule.path}:{rule.line}", rule.full_name) for rule in rules]
    tables.show("rules that hold", ("place", "rule"), places or [("", "none: the policy's default")])
