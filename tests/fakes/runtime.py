"""A runtime that confines nothing and starts nothing: a sandbox plays a script that writes to the real descriptors.

Keeps the interface of `runtime.base`, and remembers what was launched and what is alive, so that a test can tell that
nothing was left behind.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from signal import SIGKILL

from sandboxd.errors import RuntimeFailed, Unenforceable
from sandboxd.model import (
    Collected,
    EnforcementRow,
    ExecPlan,
    ExitStatus,
    Guarantee,
    Isolation,
    LaunchPlan,
    LimitId,
    OutputFile,
    RuntimeCapabilities,
    SandboxUsage,
    State,
)
from sandboxd.runtime.base import Mediator

HOST_UID = 1879048192


class FakeProgram:
    """What a script sees: its three descriptors and its plan."""

    def __init__(self, plan: ExecPlan, fds: tuple[int, int, int]) -> None:
        self.plan = plan
        self.signals: list[int] = []
        self._fds = tuple(os.dup(fd) for fd in fds)
        for fd in self._fds:
            os.set_blocking(fd, False)

    async def stdin(self) -> bytes:
        """All of it, to its end."""
        return await self._transfer(self._fds[0], None)

    async def stdout(self, data: bytes) -> None:
        await self._transfer(self._fds[1], data)

    async def stderr(self, data: bytes) -> None:
        await self._transfer(self._fds[2], data)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = ()

    async def _transfer(self, fd: int, data: bytes | None) -> bytes:
        """Write `data`, or read to the end where it is None, waiting in the loop as a process would in the kernel."""
        left = memoryview(data or b"")
        taken = bytearray()
        loop = asyncio.get_running_loop()
        while data is None or left:
            try:
                if data is not None:
                    left = left[os.write(fd, left) :]
                elif piece := os.read(fd, 65536):
                    taken += piece
                else:
                    break
            except BlockingIOError:
                ready = asyncio.Event()
                add, remove = (
                    (loop.add_reader, loop.remove_reader) if data is None else (loop.add_writer, loop.remove_writer)
                )
                add(fd, ready.set)
                try:
                    await ready.wait()
                finally:
                    remove(fd)
        return bytes(taken)


Script = Callable[[FakeProgram], Awaitable[ExitStatus]]


async def hello(program: FakeProgram) -> ExitStatus:
    await program.stdout(b"hello\n")
    return ExitStatus(0, None)


async def forever(_program: FakeProgram) -> ExitStatus:
    await asyncio.Event().wait()
    raise AssertionError("it is never set")


@dataclass
class FakeSandbox:
    """`deaf`: init does not obey `stop`. `broken` names methods that fail."""

    sandbox_id: str
    script: Script
    runtime: "FakeRuntime"
    host_uid: int = HOST_UID
    listeners: Mapping[int, int] = field(default_factory=dict)
    counters: SandboxUsage = field(default_factory=SandboxUsage)
    reached: tuple[LimitId, ...] = ()
    files: tuple[OutputFile, ...] = ()
    deaf: bool = False
    broken: frozenset[str] = frozenset()
    program: FakeProgram | None = None
    oom: Callable[[], None] | None = None
    mediator: Mediator | None = None
    calls: list[str] = field(default_factory=list)
    _main: asyncio.Task[ExitStatus] | None = None

    def mediate(self, mediator: Mediator) -> None:
        self.mediator = mediator

    async def start(self, plan: ExecPlan, stdin: int, stdout: int, stderr: int) -> int:
        await self._step("start")
        self.program = FakeProgram(plan, (stdin, stdout, stderr))
        self._main = asyncio.get_running_loop().create_task(self._play(self.program))
        return 2

    async def wait(self, execution_id: str) -> ExitStatus:
        await self._step("wait")
        assert self._main is not None
        await asyncio.wait({self._main})
        if "lost" in self.broken:
            raise RuntimeFailed("the sandbox ended")
        return ExitStatus(None, SIGKILL) if self._main.cancelled() else self._main.result()

    async def signal(self, execution_id: str, signum: int) -> None:
        await self._step("signal")
        assert self.program is not None
        self.program.signals.append(signum)

    async def stop(self, execution_id: str) -> None:
        await self._step("stop")
        if not self.deaf:
            await self._kill()

    async def collect(self, patterns: tuple[str, ...], max_bytes: int, max_files: int) -> Collected:
        await self._step("collect")
        return Collected(self.files[:max_files], (), limit_reached=len(self.files) > max_files)

    def usage(self) -> SandboxUsage:
        return self.counters

    def limits_reached(self) -> tuple[LimitId, ...]:
        return self.reached

    def on_oom(self, callback: Callable[[], None]) -> None:
        self.oom = callback

    async def destroy(self) -> SandboxUsage:
        await self._kill()
        self.runtime.alive.discard(self.sandbox_id)
        await self._step("destroy")
        return self.counters

    async def _play(self, program: FakeProgram) -> ExitStatus:
        return await self.script(program)

    async def _kill(self) -> None:
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait({self._main})
        if self.program is not None:
            self.program.close()

    async def _step(self, name: str) -> None:
        self.calls.append(name)
        await self.runtime.step()
        if name in self.broken:
            raise RuntimeFailed(f"{name} failed")


def everything_enforced(isolation: Isolation = Isolation.PROCESS) -> RuntimeCapabilities:
    rows = tuple(EnforcementRow(guarantee, State.ENFORCED, ("fake",)) for guarantee in Guarantee)
    return RuntimeCapabilities(isolation, "root", rows)


@dataclass
class FakeRuntime:
    """`prepare` sees each sandbox before it is handed out. `steps` is how often each verb gives way to others."""

    script: Script = hello
    isolation: Isolation = Isolation.PROCESS
    capabilities: RuntimeCapabilities = field(default_factory=everything_enforced)
    launch_error: Exception | None = None
    pause_error: Exception | None = None
    paused: set[str] = field(default_factory=set)
    prepare: Callable[[FakeSandbox], None] | None = None
    steps: int = 0
    launches: list[LaunchPlan] = field(default_factory=list)
    sandboxes: list[FakeSandbox] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)

    async def step(self) -> None:
        for _ in range(self.steps):
            await asyncio.sleep(0)

    def probe(self) -> RuntimeCapabilities:
        return self.capabilities

    async def launch(self, plan: LaunchPlan) -> FakeSandbox:
        self.launches.append(plan)
        if self.launch_error is not None:
            raise self.launch_error
        sandbox = FakeSandbox(plan.sandbox_id, self.script, self)
        self.alive.add(plan.sandbox_id)
        if self.prepare is not None:
            self.prepare(sandbox)
        self.sandboxes.append(sandbox)
        await self.step()
        return sandbox

    async def pause(self, sandbox_id: str) -> None:
        await self.step()
        if self.pause_error is not None:
            raise self.pause_error
        self.paused.add(sandbox_id)

    async def resume(self, sandbox_id: str) -> None:
        await self.step()
        if self.pause_error is not None:
            raise self.pause_error
        self.paused.discard(sandbox_id)

    async def examine(self, sandbox_id: str, workspace_bytes: int) -> AsyncGenerator[tuple[str, bytes], None]:
        await self.step()
        yield "processes.json", b"[]"
        yield "workspace.tar", bytes(min(1024, workspace_bytes))

    async def snapshot(self, sandbox_id: str) -> str:
        raise Unenforceable("a fake cannot snapshot")

    async def restore(self, snapshot_id: str) -> FakeSandbox:
        raise Unenforceable("a fake cannot restore")
