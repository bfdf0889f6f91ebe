"""What every runtime offers. A runtime confines; it never decides, never records, never talks to a network.

All verbs exist on all runtimes; one that a runtime lacks raises `Unenforceable` (FAILED_PRECONDITION).
Called by `execution` and `supervise`; found by name through `plugin`.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from sandboxd.action import ProcessExec
from sandboxd.model import (
    Collected,
    ExecPlan,
    ExitStatus,
    Isolation,
    LaunchPlan,
    LimitId,
    RefusedCalls,
    RuntimeCapabilities,
    SandboxUsage,
)


class Mediator(Protocol):
    """Decides what a profile wants asked about, while the program waits. Neither method raises."""

    async def may_exec(self, action: ProcessExec) -> bool: ...

    async def refused(self, calls: RefusedCalls) -> None: ...


class Sandbox(Protocol):
    """One living sandbox. Every method may raise `RuntimeFailed` once the sandbox is gone."""

    sandbox_id: str
    host_uid: int  # the first id of this sandbox's range on the host
    listeners: Mapping[int, int]  # port → descriptor that listens in its network, for egress; open while it lives

    async def start(self, plan: ExecPlan, stdin: int, stdout: int, stderr: int) -> int:
        """Start a program on these three descriptors (which stay the caller's to close); the pid inside the sandbox.

        Files of the plan are put into the workspace first. A program that cannot be executed is no error: it ends with
        126 or 127 as in a shell, with the reason written on its stderr.
        """

    async def wait(self, execution_id: str) -> ExitStatus:
        """Until the main process of that execution ended and nothing that it left behind runs any more."""

    async def signal(self, execution_id: str, signum: int) -> None:
        """Send a signal to the process group of that execution."""

    async def stop(self, execution_id: str) -> None:
        """Kill every process of that execution; the sandbox and its files stay for `collect`."""

    async def collect(self, patterns: tuple[str, ...], max_bytes: int, max_files: int) -> Collected:
        """Regular files of the workspace that match, read from descriptors which the sandbox's own init opened."""

    def usage(self) -> SandboxUsage:
        """Counters as of now."""

    def limits_reached(self) -> tuple[LimitId, ...]:
        """Limits that init saw reached and the program survived (files, workspace, descriptors)."""

    def mediate(self, mediator: Mediator) -> None:
        """Have it asked, one question after the other, before `wait` returns. Without one the answer is always no."""

    def on_oom(self, callback: Callable[[], None]) -> None:
        """Call back (on the event loop) when the kernel's OOM killer acted in this sandbox."""

    async def destroy(self) -> SandboxUsage:
        """Kill everything, wait until no process, mount, cgroup or directory is left; the last counters. Idempotent."""


class Runtime(Protocol):
    isolation: Isolation

    def probe(self) -> RuntimeCapabilities:
        """What this runtime can enforce on this node."""

    async def launch(self, plan: LaunchPlan) -> Sandbox:
        """A complete, empty sandbox, or `Unenforceable` / `Overloaded` / `RuntimeFailed`; never a weaker one."""

    async def pause(self, sandbox_id: str) -> None:
        """Have its programs stand still, so that none runs another instruction; done when this returns. Idempotent.

        It can still be destroyed. `RuntimeFailed` if they do not stand still: then they go on.
        """

    async def resume(self, sandbox_id: str) -> None:
        """Let them go on. Idempotent."""

    def examine(self, sandbox_id: str, workspace_bytes: int) -> AsyncGenerator[tuple[str, bytes], None]:
        """Pieces of files about a living sandbox, frozen or not: its processes, its mounts, and its workspace, of
        which at most so many bytes are taken. Nothing in the sandbox notices."""

    async def snapshot(self, sandbox_id: str) -> str: ...

    async def restore(self, snapshot_id: str) -> Sandbox: ...
