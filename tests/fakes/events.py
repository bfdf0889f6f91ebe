"""Audit events for tests."""

from typing import ClassVar, get_origin, get_type_hints

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
    """One of that kind: empty where nothing is said."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}
    empty = {name: _EMPTY.get(get_origin(hint) or hint) for name, hint in hints.items()}
    return kind(**{**empty, **values})  # type: ignore[arg-type]
