"""One program in one sandbox, from its start until nothing of it is left: streams, deadlines, limits, clean-up.

Knows nothing of policy, audit or callers. Whatever happens in `run`, the sandbox is destroyed and every descriptor is
closed when it returns; the outcome is told before, as soon as no process is left. Called by `execution`; what the end
is called is decided in `ending`.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

from sandboxd import ending
from sandboxd.errors import RuntimeFailed, Unenforceable
from sandboxd.model import (
    Collected,
    EndReason,
    ExecPlan,
    ExitStatus,
    LimitId,
    Outcome,
    SandboxUsage,
    Stream,
    Usage,
)
from sandboxd.output import Feeder, Pump, Queue
from sandboxd.redaction.redaction import Redaction
from sandboxd.runtime.base import Sandbox

CPU_POLL_SECONDS = 0.1
STOP_GRACE_SECONDS = 2.0
COLLECT_SECONDS = 10.0
TIDY_AFTER_SECONDS = 0.002  # the answer goes first: to take a sandbox apart keeps a CPU busy for as long as sending it
NOTHING_COLLECTED = Collected((), (), limit_reached=False)
EVEN_IF_HELD = (EndReason.KILLED, EndReason.NODE_SHUTDOWN)
NOBODY_WAITS = (EndReason.CANCELLED, EndReason.NODE_SHUTDOWN)  # for the files

log = logging.getLogger(__name__)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic time in seconds, and timers by it."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class Supervision:
    """Supervises one execution. The consumer reads `queue` at its own pace; `end` may be called at any time."""

    def __init__(
        self, sandbox: Sandbox, plan: ExecPlan, clock: Clock, queue: Queue, redaction: Redaction | None = None
    ) -> None:
        self.queue = queue
        self._redaction = redaction
        self._sandbox = sandbox
        self._plan = plan
        self._limits = plan.limits
        self._clock = clock
        self._asked: EndReason | None = None
        self._deferred: EndReason | None = None  # until it is released
        self._running = False
        self._over = False
        self.begun = asyncio.Event()  # the program runs, or never will
        self.frozen = False
        self.held = False
        self._pumps: tuple[Pump, ...] = ()
        self._feeder: Feeder | None = None
        self._timers: dict[str, Timer] = {}
        self._started_at = self._last_output = self._wall_seconds = 0.0
        self._produced = 0
        self._stops: set[asyncio.Task[None]] = set()
        self._last_usage: SandboxUsage | None = None

    def end(self, reason: EndReason) -> None:
        """Ask for the end of the whole tree. The first reason stays; once the main process ended it changes nothing."""
        if self._asked is not None or self._over:
            return
        if self.held and reason not in EVEN_IF_HELD:
            self._deferred = self._deferred or reason
            return
        self._asked = reason
        if self._running:
            self._stop()

    @property
    def over(self) -> bool:
        """Its end has come, or was asked for."""
        return self._over or self._asked is not None

    def hold(self) -> None:
        """From now on nothing ends it but an operator, the node, and the program itself."""
        self.held = True

    def release(self) -> None:
        """What would have ended it meanwhile does so now."""
        self.held = False
        if self._deferred is not None:
            self.end(self._deferred)

    async def signal(self, signum: int) -> None:
        """`Unenforceable` while it is frozen: it would wait, and arrive when nobody expects it."""
        if self.frozen:
            raise Unenforceable("the execution is frozen; kill it whole, or have it thawed first", reason="frozen")
        if self._running and not self._over:
            await self._sandbox.signal(self._plan.execution_id, signum)

    async def run(self, on_outcome: Callable[[Outcome], Awaitable[None]]) -> Outcome:
        """Start the program and see it through. `InvalidRequest` if its files cannot be put in; what the program or
        its sandbox does is in the Outcome, which `on_outcome` gets once the tree is dead and before it is removed."""
        try:
            outcome = await self._see_through()
            await on_outcome(outcome)
            await asyncio.sleep(TIDY_AFTER_SECONDS)
        finally:
            await self._destroy()
        return outcome

    async def _see_through(self) -> Outcome:
        status: ExitStatus | None = None
        usage = SandboxUsage()
        reached: tuple[LimitId, ...] = ()
        collected = NOTHING_COLLECTED
        try:
            if self._asked is None:
                await self._start()
                status = await self._sandbox.wait(self._plan.execution_id)
        except (RuntimeFailed, OSError) as error:
            self._complain("execution failed", error)
        finally:
            self._over = True
            self.begun.set()
            self._wall_seconds = self._clock.time() - self._started_at if self._running else 0.0
            for timer in self._timers.values():
                timer.cancel()
            try:
                if status is not None and self._plan.collect and self._asked not in NOBODY_WAITS:
                    collected = await self._collect()
                    if self._redaction is not None:
                        collected = await self._redaction.collected(collected, self._limits.output_files_bytes)
                reached = self._reached()
            finally:
                # Without a status nobody said that the tree is dead.
                usage = await self._destroy() if status is None else self._usage()
                for stop in tuple(self._stops):
                    stop.cancel()
                # Every writer is dead now, so this neither blocks nor waits for a late one.
                for pump in self._pumps:
                    pump.drain()
                if self._feeder is not None:
                    self._feeder.close()
                self.queue.close()
        return self._outcome(status, usage, reached, collected)

    # --- before

    async def _start(self) -> None:
        """Pipes, then the program, then the deadlines."""
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for ours_is in (1, 0, 0):
                pair = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(pair[ours_is], False)
                # Opened anew as /dev/stdout and the like, which asks whose it is, unlike writing to what one was given.
                os.fchmod(pair[0], 0o666)
                ours.append(pair[ours_is])
                theirs.append(pair[1 - ours_is])
            limits = self._limits
            self._feeder = Feeder(ours.pop(0), self._plan.stdin)
            self._pumps = (
                self._pump(Stream.STDOUT, ours.pop(0), limits.stdout_bytes),
                self._pump(Stream.STDERR, ours.pop(0), limits.stderr_bytes),
            )
            self._sandbox.on_oom(self._on_oom)
            await self._sandbox.start(self._plan, *theirs)
        finally:
            for fd in (*ours, *theirs):
                os.close(fd)
        self._started_at = self._last_output = self._clock.time()
        self._running = True
        self.begun.set()
        self.queue.on_room = self._resume
        self._resume()
        if self._asked is None:
            self._arm()
        else:
            self._stop()

    def _pump(self, stream: Stream, fd: int, cap: int) -> Pump:
        redactor = self._redaction.stream() if self._redaction is not None else None
        return Pump(stream, fd, cap, self.queue, self._on_output, redactor)

    def _arm(self) -> None:
        limits = self._limits
        now = self._started_at
        self._set_timer("wall", now + limits.wall_seconds, lambda: self.end(EndReason.WALL_TIMEOUT))
        if limits.idle_seconds > 0:
            self._set_timer("idle", now + limits.idle_seconds, self._check_idle)
        if limits.cpu_seconds > 0:
            self._set_timer("cpu", self._next_cpu_check(now, 0.0), self._check_cpu)

    # --- while it runs

    def _on_output(self, count: int) -> None:
        self._produced += count
        self._last_output = self._clock.time()
        if self._produced > self._limits.output_bytes:
            self.end(EndReason.OUTPUT_LIMIT)

    def _on_oom(self) -> None:
        self.end(EndReason.MEMORY_LIMIT)

    def _resume(self) -> None:
        if not self._over:
            for pump in self._pumps:
                pump.resume()

    def _check_idle(self) -> None:
        now = self._clock.time()
        if self.frozen or any(pump.paused for pump in self._pumps):
            self._last_output = now  # it may not, or it is the consumer who is slow: not the program
        due = self._last_output + self._limits.idle_seconds
        if now >= due:
            self.end(EndReason.IDLE_TIMEOUT)
        else:
            self._set_timer("idle", due, self._check_idle)

    def _check_cpu(self) -> None:
        try:
            used = ending.cpu_seconds(self._sandbox.usage())
        except RuntimeFailed:
            return  # the sandbox is gone, `wait` tells
        if used < 0:
            return  # not measured here: RLIMIT_CPU stands alone, and the report says so
        if used >= self._limits.cpu_seconds:
            self.end(EndReason.CPU_TIMEOUT)
        else:
            self._set_timer("cpu", self._next_cpu_check(self._clock.time(), used), self._check_cpu)

    def _next_cpu_check(self, now: float, used: float) -> float:
        """The earliest moment at which all CPUs of this machine together could have used up what is left."""
        return now + max(CPU_POLL_SECONDS, (self._limits.cpu_seconds - used) / (os.cpu_count() or 1))

    def _set_timer(self, name: str, when: float, callback: Callable[[], None]) -> None:
        self._timers[name] = self._clock.call_at(when, callback)

    def _stop(self) -> None:
        self._spawn(lambda: self._sandbox.stop(self._plan.execution_id))
        # Init is asked first because it keeps the files; the spawner kills from outside if init does not get it done.
        self._set_timer("stop", self._clock.time() + STOP_GRACE_SECONDS, lambda: self._spawn(self._sandbox.destroy))

    def _spawn(self, work: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.get_running_loop().create_task(self._attempt(work))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _attempt(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (RuntimeFailed, OSError) as error:
            self._complain("stopping failed", error)

    # --- after

    async def _collect(self) -> Collected:
        """Output files, once no process is left that could change them."""
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                await self._sandbox.stop(self._plan.execution_id)
                return await self._sandbox.collect(
                    self._plan.collect, self._limits.output_files_bytes, self._limits.output_files
                )
        except (RuntimeFailed, OSError) as error:
            self._complain("collecting failed", error)
            skipped = tuple((pattern, "collecting failed") for pattern in self._plan.collect)
            return Collected((), skipped, limit_reached=False)

    def _reached(self) -> tuple[LimitId, ...]:
        try:
            return self._sandbox.limits_reached()
        except RuntimeFailed:
            return ()

    def _usage(self) -> SandboxUsage:
        try:
            return self._sandbox.usage()
        except RuntimeFailed:
            return SandboxUsage()

    async def _destroy(self) -> SandboxUsage:
        """Once it is gone, a second call gives the same numbers."""
        if self._last_usage is None:
            try:
                self._last_usage = await self._sandbox.destroy()
            except (RuntimeFailed, OSError) as error:
                self._complain("destroying failed", error)
        return self._last_usage or SandboxUsage()

    def _complain(self, message: str, error: Exception) -> None:
        log.error(message, extra={"execution_id": self._plan.execution_id, "error": str(error)})

    def _outcome(
        self, status: ExitStatus | None, usage: SandboxUsage, reached: tuple[LimitId, ...], collected: Collected
    ) -> Outcome:
        produced = {pump.stream: pump.produced for pump in self._pumps}
        stdout_bytes, stderr_bytes = produced.get(Stream.STDOUT, 0), produced.get(Stream.STDERR, 0)
        reached += tuple(LimitId(pump.stream) for pump in self._pumps if pump.grown)
        facts = ending.Facts(
            self._asked, status, usage, self._limits, reached, stdout_bytes, stderr_bytes, collected.limit_reached
        )
        reason = ending.end_reason(facts)
        hit = ending.limits_hit(facts, reason)
        return Outcome(
            execution_id=self._plan.execution_id,
            end_reason=reason,
            exit_code=status.exit_code if status is not None else None,
            signal=status.signal if status is not None else None,
            usage=Usage(
                wall_seconds=self._wall_seconds,
                cpu_user_seconds=usage.cpu_user_seconds,
                cpu_system_seconds=usage.cpu_system_seconds,
                peak_memory_bytes=usage.peak_memory_bytes,
                peak_pids=usage.peak_pids,
                io_read_bytes=usage.io_read_bytes,
                io_write_bytes=usage.io_write_bytes,
                stdout_bytes=stdout_bytes,
                stderr_bytes=stderr_bytes,
            ),
            limits_hit=hit,
            stdout_truncated=LimitId.STDOUT in hit,
            stderr_truncated=LimitId.STDERR in hit,
            violations=ending.violations(reason),
            files=collected.files,
            files_skipped=collected.skipped,
            message_for_agent=ending.message_for_agent(reason, status, self._limits),
        )
