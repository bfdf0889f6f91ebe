"""Audit events for tests."""

from sandboxd.event import SandboxViolated


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
