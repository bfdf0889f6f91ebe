"""An executor that runs nothing: it plays a script, and tells what it was asked and how its call ended.

Used by the tests of `rpc`; it keeps the interface of `execution.Executor`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from sandboxd.model import (
    Accepted,
    Caller,
    Chunk,
    EndReason,
    EnforcementReport,
    EnforcementRow,
    ExecuteRequest,
    Guarantee,
    Isolation,
    Outcome,
    State,
    Stream,
    Usage,
)

EXECUTION_ID = "0123456789abcdef0123456789abcdef"
SANDBOX_ID = "fedcba9876543210fedcba9876543210"

REPORT = EnforcementReport(
    runtime=Isolation.PROCESS,
    rows=(
        EnforcementRow(Guarantee.NETWORK_NONE, State.ENFORCED, ("namespace", "seccomp")),
        EnforcementRow(Guarantee.LIMIT_MEMORY, State.DEGRADED, ("rlimit",), "no cgroup here"),
    ),
    warnings=("memory is limited for each process, not for all together",),
)
ACCEPTED = Accepted(
    execution_id=EXECUTION_ID,
    sandbox_id=SANDBOX_ID,
    profile="default",
    profile_digest="ab" * 32,
    policy_revision="r1",
    report=REPORT,
)
OUTCOME = Outcome(
    execution_id=EXECUTION_ID,
    end_reason=EndReason.EXITED,
    exit_code=0,
    signal=None,
    usage=Usage(wall_seconds=0.5, stdout_bytes=6),
)

Item = Accepted | Chunk | Outcome
Script = Callable[[ExecuteRequest, Caller], AsyncGenerator[Item, None]]


async def greeting(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
    """The usual run: one line on each stream."""
    yield ACCEPTED
    yield Chunk(Stream.STDOUT, 0, b"hello\n")
    yield Chunk(Stream.STDERR, 0, b"oh\n")
    yield OUTCOME


async def endless(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
    """A program that waits forever after its first line."""
    yield ACCEPTED
    yield Chunk(Stream.STDOUT, 0, b"waiting\n")
    await asyncio.Event().wait()


class FakeExecutor:
    """`ended` is set whenever a call's generator was left, for whatever reason."""

    def __init__(self, script: Script = greeting) -> None:
        self.script = script
        self.requests: list[tuple[ExecuteRequest, Caller]] = []
        self.handed_out = 0
        self.ended = asyncio.Event()

    async def execute(self, request: ExecuteRequest, caller: Caller) -> AsyncGenerator[Item, None]:
        self.requests.append((request, caller))
        try:
            async for item in self.script(request, caller):
                self.handed_out += 1
                yield item
        finally:
            self.ended.set()
