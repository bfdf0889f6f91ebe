"""Audit events for tests."""

from dataclasses import MISSING, fields
from typing import get_origin, get_type_hints

from sandboxd.event import Event, SandboxViolated

_EMPTY: dict[object, object] = {str: "", int: 0, float: 0.0, bool: False, tuple: ()}


def violated(detail: str = "", *, tenant: str = "local") -> SandboxViolated:
    return SandboxViolated(
        tenant=tenant,
        subject="uid:0",
        execution_id="e" * 32,
        sandbox_id="5" * 32,
        policy_revision="r1",
        trace_id="t" * 32,
        layer="seccomp",
        code="killed",
        detail=detail,
    )


def made(kind: type[Event], **values: object) -> Event:
    """One of that kind: empty, or as by default, where nothing is said."""
    hints = get_type_hints(kind)
    required = [field.name for field in fields(kind) if field.default is MISSING]
    empty = {name: _EMPTY.get(get_origin(hints[name]) or hints[name]) for name in required}
    return kind(**{**empty, **values})  # type: ignore[arg-type]
