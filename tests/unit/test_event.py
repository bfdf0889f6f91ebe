import pytest

from sandboxd.event import (
    ConfigReloaded,
    Event,
    ExecutionEnded,
    PolicyDecided,
    Priority,
    ProcessExecDecided,
    SandboxViolated,
)
from tests.fakes.events import made


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (made(PolicyDecided, verdict="allow"), "Informational"),
        (made(PolicyDecided, verdict="deny"), "Warning"),
        (made(ProcessExecDecided, layer=""), "Informational"),
        (made(ProcessExecDecided, layer="policy"), "Warning"),
        (made(ExecutionEnded, end_reason="EXITED"), "Informational"),
        (made(ExecutionEnded, end_reason="VIOLATION"), "Warning"),
        (made(ConfigReloaded, ok=True), "Notice"),
        (made(ConfigReloaded, ok=False), "Error"),
        (made(SandboxViolated), "Warning"),
    ],
)
def test_priority_is_by_what_happened(event: Event, expected: Priority) -> None:
    assert event.urgency() == expected
