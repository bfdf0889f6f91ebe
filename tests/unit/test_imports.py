"""Imports point downwards, as read from every module's syntax tree; nothing is imported to find out.

The table is the design: a module may import what its row names, its own package, and the nouns. Run by `make check`.
"""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sandboxd"

NOUNS = frozenset({"action", "model", "event", "errors", "finding", "plugin", "trace_context"})
SIDES = frozenset(
    {
        "analysis",
        "approval",
        "profile",
        "policy",
        "runtime",
        "sink",
        "audit",
        "host",
        "redaction",
        "outbound",
        "settings",
        "telemetry",
    }
)
STEPS = frozenset(
    {
        "clock",
        "gate",
        "rollout",
        "shadow",
        "pool",
        "supervise",
        "suspension",
        "lifecycle",
        "readiness",
        "admission",
        "output",
        "ending",
        "mediation",
        "span",
        "profile_use",
        "recovery",
        "refusals",
        "requested",
        "voting",
    }
)

# What each top-level name of sandboxd may import of sandboxd, besides itself and the nouns.
ALLOWED: dict[str, frozenset[str]] = {
    **dict.fromkeys(NOUNS, frozenset[str]()),
    **dict.fromkeys(SIDES, SIDES),
    "redaction": frozenset({"settings"}),
    "settings": frozenset({"listening"}),
    "sink": SIDES | {"listening"},
    "outbound": frozenset({"settings"}),
    **dict.fromkeys(STEPS, SIDES | STEPS),
    "execution": SIDES | STEPS,
    "listening": frozenset(),
    "config": frozenset({"redaction", "settings"}),
    "logs": frozenset(),
    "response": SIDES | STEPS | {"listening"},
    "rpc": SIDES | STEPS | {"execution", "listening", "response"},
    "metrics": SIDES | STEPS | {"listening", "rpc"},
    "daemon": SIDES | STEPS | {"execution", "config", "logs", "metrics", "response", "rpc"},
    "spawner": frozenset(),
    "client": frozenset(),
    "cli": SIDES | {"client", "config"},
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
}

# The doors between packages that otherwise do not know each other: who may take what.
SEAMS = frozenset(
    {
        ("runtime.", "spawner.wire"),
        ("runtime.", "spawner.counters"),
        ("profile.compile", "spawner.template"),
        ("cli.serve", "spawner.options"),
    }
)
GENERATED = "rpc.v1"  # the generated API, which `client` shares with `rpc`


def modules() -> list[str]:
    paths = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.with_suffix("").parts) for path in paths)
    return [name for name in names if not name.startswith(GENERATED)]


def imported(module: str) -> set[str]:
    """Absolute names of what a module imports, with the names it takes out of packages (`from a import b` is `a.b`)."""
    tree = ast.parse((PACKAGE / Path(*module.split("."))).with_suffix(".py").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found.update(alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(source)):
                found.update(f"{source}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                pytest.fail(f"{module} has a relative import on line {node.lineno}; write it from sandboxd")
            case _:
                pass
    return found


def inside(name: str) -> str | None:
    """`sandboxd.a.b` as `a.b`, None for what is not of sandboxd."""
    return name.removeprefix("sandboxd.") if name.startswith("sandboxd.") else None


def forbidden(module: str) -> list[str]:
    """What a module imports of sandboxd against its row."""
    own = module.partition(".")[0]
    bad = []
    for name in sorted(imported(module)):
        target = inside(name)
        if target is None or target.partition(".")[0] in (own, *NOUNS, *ALLOWED[own]):
            continue
        if target == "__version__" or any(module.startswith(door) and target.startswith(room) for door, room in SEAMS):
            continue
        if own == "client" and target.startswith(GENERATED):
            continue
        bad.append(target)
    return bad


@pytest.mark.parametrize("module", modules())
def test_module_imports_only_what_is_below_it(module: str) -> None:
    assert module.partition(".")[0] in ALLOWED, f"say in ALLOWED where {module!r} stands"
    assert forbidden(module) == []


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("spawner.")])
def test_spawner_needs_the_standard_library_only(module: str) -> None:
    foreign = {name for name in imported(module) if not name.startswith("sandboxd.spawner")}
    assert {name for name in foreign if name.partition(".")[0] not in sys.stdlib_module_names} == set()


def test_client_does_not_import_the_daemon_at_run_time() -> None:
    allowed = ("client.", GENERATED, "__version__")
    taken = {
        target for name in modules() if name.startswith("client.") for target in map(inside, imported(name)) if target
    }
    assert {target for target in taken if not target.startswith(allowed)} == set()


def test_nouns_import_no_module_above_them() -> None:
    taken = {target for noun in NOUNS for target in map(inside, imported(noun)) if target}
    assert {target for target in taken if target.partition(".")[0] not in NOUNS} == set()
