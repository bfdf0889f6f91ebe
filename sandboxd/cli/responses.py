"""What `sandboxctl sandbox` is told whom it concerns, and what it prints: a table for people, JSON for programs."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sandboxd.cli import tables
from sandboxd.cli.mistake import Mistake
from sandboxd.client.response import ExecutionEffect, Quarantine, Target
from sandboxd.client.sync import Client


def named(client: Client, found: str, tenant: str, subject: str) -> Target:
    """Exactly one of them must be given. An id may be of the execution or of its sandbox."""
    if sum(map(bool, (found, tenant, subject))) != 1:
        raise Mistake("name one: an ID, --tenant or --subject")
    if not found:
        return Target(tenant=tenant, subject=subject)
    if any(execution.sandbox_id == found for execution in client.executions()):
        return Target(sandbox_id=found)
    return Target(execution_id=found)


def show_effects(effects: Sequence[ExecutionEffect], *, as_json: bool) -> None:
    if as_json:
        told = [{"execution_id": one.execution_id, "effect": one.effect} for one in effects]
        print(json.dumps(told, indent=2))  # noqa: T201
        return
    tables.show("", ("execution", "effect"), [(one.execution_id, one.effect) for one in effects])


def show_quarantines(quarantines: Sequence[Quarantine], *, as_json: bool) -> None:
    if as_json:
        told = [
            {
                "tenant": one.tenant,
                "subject": one.subject,
                "since": one.since.isoformat() if one.since is not None else None,
                "by": one.by,
                "rule": one.rule,
                "comment": one.comment,
            }
            for one in quarantines
        ]
        print(json.dumps(told, indent=2))  # noqa: T201
        return
    tables.show(
        "",
        ("tenant", "subject", "since", "by", "rule", "comment"),
        [
            (one.tenant, one.subject or "all", _time(one.since), one.by, one.rule or "-", one.comment or "-")
            for one in quarantines
        ],
    )


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment is not None else "-"
