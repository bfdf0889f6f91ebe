"""What `sandboxctl` prints about a node, its profiles and its executions: a table for people, JSON for programs."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sandboxd import __version__
from sandboxd.cli import tables
from sandboxd.client.node import Capabilities, Execution, Profile


def show_executions(executions: Sequence[Execution], *, as_json: bool) -> None:
    if as_json:
        _print_json([_execution(execution) for execution in executions])
        return
    tables.show(
        "",
        ("id", "state", "profile", "runtime", "who", "started", "command"),
        [
            (e.execution_id, _state(e), e.profile, e.isolation, e.subject, _time(e.started_at), e.command)
            for e in executions
        ],
    )


def _state(execution: Execution) -> str:
    """Held and still running is told as such: for a moment, until its quarantine has frozen it."""
    if execution.result is not None:
        return execution.result.end_reason
    state = "frozen" if execution.frozen else execution.state
    return f"{state}, held" if execution.held else state


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment is not None else "-"


def _execution(execution: Execution) -> dict[str, object]:
    result = execution.result
    return {
        "execution_id": execution.execution_id,
        "sandbox_id": execution.sandbox_id,
        "subject": execution.subject,
        "profile": execution.profile,
        "isolation": execution.isolation,
        "command": execution.command,
        "labels": dict(execution.labels),
        "state": execution.state,
        "frozen": execution.frozen,
        "held": execution.held,
        "started_at": execution.started_at.isoformat() if execution.started_at else None,
        "ended_at": execution.ended_at.isoformat() if execution.ended_at else None,
        "end_reason": result.end_reason if result else None,
        "exit_code": result.exit_code if result else None,
        "signal": result.signal if result else None,
    }


def show_version(node: Capabilities, *, as_json: bool) -> None:
    told = {
        "client": __version__,
        "daemon": node.version,
        "api": ", ".join(node.api_versions),
        "node": node.node,
        "kernel": node.kernel,
        "mode": node.mode,
        "policy revision": node.policy_revision,
    }
    if as_json:
        _print_json({key.replace(" ", "_"): value for key, value in told.items()})
        return
    tables.show("", ("", ""), list(told.items()))


def show_profiles(profiles: Sequence[Profile], *, as_json: bool) -> None:
    if as_json:
        rows = [{"name": p.name, "description": p.description, "digest": p.digest} for p in profiles]
        _print_json(rows)
        return
    tables.show(
        "",
        ("name", "runtime", "languages", "digest", "description"),
        [
            (p.name, p.isolation, ", ".join(i.language for i in p.interpreters), p.digest[:12], p.description)
            for p in profiles
        ],
    )


def show_profile(profile: Profile, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(json.loads(profile.spec_json), indent=2))  # noqa: T201
        return
    tables.show(
        profile.name,
        ("", ""),
        [
            ("description", profile.description),
            ("digest", profile.digest),
            ("runtime", profile.isolation),
            ("network", profile.network),
            ("working directory", profile.cwd),
            ("environment", ", ".join(f"{name}={value}" for name, value in profile.env)),
            ("a request may set", ", ".join(profile.env_allowed) or "-"),
            *((f"language {i.language}", " ".join(i.argv)) for i in profile.interpreters),
        ],
    )
    tables.show("", ("limit", "value"), [(name, _limit(name, value)) for name, value in profile.limits])
    tables.show("", ("guarantee", "asked for as"), [(name, level) for name, level in profile.requirements])
    if profile.warnings:
        tables.show("", ("what makes it weaker",), [(warning,) for warning in profile.warnings])


def _limit(name: str, value: float) -> str:
    if name.endswith("_seconds"):
        return f"{value:g} s"
    return tables.size(int(value)) if "_bytes" in name else f"{value:g}"


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201
