"""One supervised program: streams, deadlines, limits and clean-up, on a clock that the test turns."""

import asyncio
import os
import signal
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandboxd.errors import Unenforceable
from sandboxd.model import (
    EndReason,
    ExecPlan,
    ExitStatus,
    LimitId,
    Limits,
    Outcome,
    OutputFile,
    SandboxUsage,
    Stream,
)
from sandboxd.output import QUEUE_BYTES, Queue
from sandboxd.redaction.patterns import Catalogue, Source
from sandboxd.redaction.redaction import Redaction
from sandboxd.supervise import STOP_GRACE_SECONDS, Supervision
from tests.fakes.clock import FakeClock
from tests.fakes.runtime import FakeProgram, FakeRuntime, FakeSandbox, Script, forever, hello

KIB = 1024
MIB = 1024 * KIB
LIMITS = Limits(
    wall_seconds=60,
    idle_seconds=0,
    cpu_seconds=10,
    cpus=1,
    memory_bytes=64 * MIB,
    pids=16,
    open_files=64,
    file_size_bytes=MIB,
    workspace_bytes=MIB,
    workspace_inodes=100,
    tmp_bytes=MIB,
    tmp_inodes=100,
    stdout_bytes=64 * KIB,
    stderr_bytes=64 * KIB,
    output_bytes=128 * MIB,
    output_files_bytes=MIB,
    output_files=2,
    io_read_bytes_per_second=0,
    io_write_bytes_per_second=0,
)
PLAN = ExecPlan("e" * 32, ("/bin/true",), (), "/workspace", LIMITS, b"", (), ())


@pytest.fixture(autouse=True)
async def _no_descriptor_is_left() -> AsyncIterator[None]:
    before = _open_descriptors()
    yield
    assert _open_descriptors() <= before


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass
class Run:
    """A supervised execution under way."""

    clock: FakeClock
    runtime: FakeRuntime
    sandbox: FakeSandbox
    supervision: Supervision
    queue: Queue
    task: asyncio.Task[Outcome]

    async def started(self) -> None:
        await until(lambda: self.supervision._running)

    async def output(self) -> dict[Stream, bytes]:
        kept = dict.fromkeys(Stream, b"")
        while (chunk := await self.queue.get()) is not None:
            assert chunk.offset == len(kept[chunk.stream])
            kept[chunk.stream] += chunk.data
        return kept


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def ignore(outcome: Outcome) -> None:
    pass


async def begin(
    script: Script,
    plan: ExecPlan = PLAN,
    prepare: Callable[[FakeSandbox], None] | None = None,
    redaction: Redaction | None = None,
) -> Run:
    clock, runtime, queue = FakeClock(), FakeRuntime(script=script), Queue()
    sandbox = FakeSandbox("s" * 32, script, runtime)
    runtime.alive.add(sandbox.sandbox_id)
    if prepare is not None:
        prepare(sandbox)
    supervision = Supervision(sandbox, plan, clock, queue, redaction)
    return Run(clock, runtime, sandbox, supervision, queue, asyncio.create_task(supervision.run(ignore)))


def limited(**changes: float) -> ExecPlan:
    return replace(PLAN, limits=replace(LIMITS, **changes))  # type: ignore[arg-type]


def exits(code: int) -> Script:
    async def script(_program: FakeProgram) -> ExitStatus:
        return ExitStatus(code, None)

    return script


def writes(count: int, stream: str = "stdout") -> Script:
    async def script(program: FakeProgram) -> ExitStatus:
        write: Callable[[bytes], Awaitable[None]] = getattr(program, stream)
        for _ in range(count // (16 * KIB)):
            await write(b"x" * 16 * KIB)
        return ExitStatus(0, None)

    return script


async def test_output_and_exit_code_come_back_and_the_sandbox_is_gone() -> None:
    run = await begin(hello)
    assert (await run.output())[Stream.STDOUT] == b"hello\n"
    outcome = await run.task
    assert (outcome.end_reason, outcome.exit_code, outcome.signal) == (EndReason.EXITED, 0, None)
    assert outcome.usage.stdout_bytes == 6
    assert run.runtime.alive == set()
    assert run.clock.pending == 0


async def test_exit_code_of_a_failing_program_is_kept() -> None:
    run = await begin(exits(3))
    assert (await run.task).exit_code == 3


async def test_stdin_beyond_the_pipe_reaches_the_program_whole() -> None:
    data = os.urandom(3 * MIB)

    async def script(program: FakeProgram) -> ExitStatus:
        return ExitStatus(0 if await program.stdin() == data else 1, None)

    run = await begin(script, replace(PLAN, stdin=data))
    assert (await run.task).exit_code == 0


async def test_a_program_that_never_reads_its_stdin_ends_as_it_likes() -> None:
    run = await begin(exits(0), replace(PLAN, stdin=b"x" * MIB))
    assert (await run.task).exit_code == 0


async def test_empty_stdin_is_at_its_end() -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        return ExitStatus(len(await program.stdin()), None)

    run = await begin(script)
    assert (await run.task).exit_code == 0


async def test_output_over_the_cap_is_counted_dropped_and_flagged() -> None:
    run = await begin(writes(MIB))
    output = await run.output()
    outcome = await run.task
    assert output[Stream.STDOUT] == b"x" * 64 * KIB
    assert outcome.usage.stdout_bytes == MIB
    assert (outcome.stdout_truncated, outcome.stderr_truncated) == (True, False)
    assert outcome.limits_hit == (LimitId.STDOUT,)
    assert outcome.end_reason is EndReason.EXITED


async def test_too_much_output_in_all_ends_the_execution() -> None:
    run = await begin(writes(1024 * MIB, "stderr"), limited(output_bytes=MIB))
    outcome = await run.task
    assert outcome.end_reason is EndReason.OUTPUT_LIMIT
    assert outcome.stderr_truncated
    assert LimitId.OUTPUT not in outcome.limits_hit
    assert outcome.usage.stderr_bytes <= 2 * MIB


async def test_slow_reader_pauses_the_program_and_memory_stays_flat() -> None:
    produced = 0

    async def script(program: FakeProgram) -> ExitStatus:
        nonlocal produced
        for _ in range(1024):
            await program.stdout(b"x" * 64 * KIB)
            produced += 64 * KIB
        return ExitStatus(0, None)

    tracemalloc.start()
    run = await begin(script, limited(stdout_bytes=128 * MIB))
    await run.started()
    for _ in range(2000):
        await asyncio.sleep(0)
    paused_at = produced
    assert QUEUE_BYTES <= paused_at <= QUEUE_BYTES + 256 * KIB
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()
    total = 0
    while (chunk := await run.queue.get()) is not None:
        total += len(chunk.data)
    assert total == 64 * MIB
    assert (await run.task).end_reason is EndReason.EXITED


async def test_flood_of_single_bytes_is_bounded_too() -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        for _ in range(20_000):
            await program.stdout(b"x")
            await asyncio.sleep(0)
        return ExitStatus(0, None)

    run = await begin(script)
    await run.started()
    for _ in range(5000):
        await asyncio.sleep(0)
    assert len(run.queue._chunks) <= QUEUE_BYTES // 256 + 1
    run.supervision.end(EndReason.KILLED)
    await run.task


async def test_wall_deadline_fires_while_reading_is_paused() -> None:
    run = await begin(writes(1024 * MIB), limited(stdout_bytes=512 * MIB, output_bytes=1024 * MIB))
    await run.started()
    await until(lambda: run.queue.full)
    run.clock.advance(60)
    outcome = await run.task
    assert outcome.end_reason is EndReason.WALL_TIMEOUT
    assert outcome.usage.wall_seconds == pytest.approx(60)


async def test_partial_output_and_files_survive_a_timeout() -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        await program.stdout(b"partial")
        return await forever(program)

    file = OutputFile("out.txt", b"data", 0o644)
    run = await begin(script, replace(PLAN, collect=("*",)), lambda sandbox: setattr(sandbox, "files", (file,)))
    first = await run.queue.get()
    assert first is not None and first.data == b"partial"
    run.clock.advance(60)
    outcome = await run.task
    assert outcome.end_reason is EndReason.WALL_TIMEOUT
    assert outcome.files == (file,)
    assert run.sandbox.calls[-2:] == ["collect", "destroy"]


async def test_idle_deadline_counts_from_the_last_output() -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        await program.stdin()
        await program.stdout(b"x")
        return await forever(program)

    run = await begin(script, limited(idle_seconds=5))
    await run.started()
    assert await run.queue.get() is not None
    run.clock.now += 4
    run.supervision._on_output(1)
    run.clock.advance(4.9)
    assert not run.sandbox.calls.count("stop")
    run.clock.advance(0.2)
    assert (await run.task).end_reason is EndReason.IDLE_TIMEOUT


async def test_idle_deadline_does_not_blame_the_program_for_a_slow_reader() -> None:
    run = await begin(writes(1024 * MIB), limited(stdout_bytes=512 * MIB, idle_seconds=5))
    await run.started()
    await until(lambda: any(pump.paused for pump in run.supervision._pumps))
    run.clock.advance(20)
    await asyncio.sleep(0)
    assert "stop" not in run.sandbox.calls
    run.supervision.end(EndReason.KILLED)
    await run.task


async def test_cpu_time_of_the_tree_ends_it() -> None:
    busy = SandboxUsage(cpu_user_seconds=1.0, cpu_system_seconds=0.0)
    run = await begin(forever, limited(wall_seconds=1000), lambda sandbox: setattr(sandbox, "counters", busy))
    await run.started()
    run.clock.advance(30)
    assert "stop" not in run.sandbox.calls
    run.sandbox.counters = SandboxUsage(cpu_user_seconds=9.5, cpu_system_seconds=0.6)
    run.clock.advance(10)
    assert (await run.task).end_reason is EndReason.CPU_TIMEOUT


async def test_cpu_time_that_is_not_measured_is_not_polled_again() -> None:
    run = await begin(forever, limited(wall_seconds=1000))
    await run.started()
    run.clock.advance(30)
    assert run.clock.pending == 1  # the wall deadline alone
    run.supervision.end(EndReason.KILLED)
    await run.task


async def test_memory_notice_ends_it_as_memory_limit() -> None:
    run = await begin(forever)
    await run.started()
    assert run.sandbox.oom is not None
    run.sandbox.oom()
    assert (await run.task).end_reason is EndReason.MEMORY_LIMIT


async def test_init_that_does_not_obey_is_killed_from_outside() -> None:
    run = await begin(forever, prepare=lambda sandbox: setattr(sandbox, "deaf", True))
    await run.started()
    run.supervision.end(EndReason.KILLED)
    await until(lambda: "stop" in run.sandbox.calls)
    assert not run.task.done()
    run.clock.advance(STOP_GRACE_SECONDS)
    assert (await run.task).end_reason is EndReason.KILLED
    assert run.runtime.alive == set()


async def test_first_reason_asked_for_stays() -> None:
    run = await begin(forever)
    await run.started()
    run.supervision.end(EndReason.CANCELLED)
    run.supervision.end(EndReason.NODE_SHUTDOWN)
    run.clock.advance(60)
    assert (await run.task).end_reason is EndReason.CANCELLED


async def test_asked_before_the_start_nothing_is_started() -> None:
    runtime, queue = FakeRuntime(), Queue()
    sandbox = FakeSandbox("s" * 32, hello, runtime)
    supervision = Supervision(sandbox, PLAN, FakeClock(), queue)
    supervision.end(EndReason.CANCELLED)
    outcome = await supervision.run(ignore)
    assert outcome.end_reason is EndReason.CANCELLED
    assert sandbox.calls == ["destroy"]


async def test_signal_reaches_the_program_only_while_it_runs() -> None:
    run = await begin(forever)
    await run.started()
    await run.supervision.signal(signal.SIGINT)
    assert run.sandbox.program is not None
    assert run.sandbox.program.signals == [signal.SIGINT]
    run.supervision.end(EndReason.KILLED)
    await run.task
    await run.supervision.signal(signal.SIGINT)
    assert run.sandbox.program.signals == [signal.SIGINT]


@pytest.mark.parametrize("step", ["start", "wait", "lost"])
async def test_broken_sandbox_is_runtime_failed_and_destroyed(step: str) -> None:
    run = await begin(hello, prepare=lambda sandbox: setattr(sandbox, "broken", frozenset({step})))
    outcome = await run.task
    assert outcome.end_reason is EndReason.RUNTIME_FAILED
    assert (outcome.exit_code, outcome.signal) == (None, None)
    assert run.runtime.alive == set()


@pytest.mark.parametrize("step", ["stop", "collect", "destroy"])
async def test_trouble_at_the_end_keeps_the_exit_code(step: str) -> None:
    plan = replace(PLAN, collect=("*.txt",))
    run = await begin(exits(7), plan, lambda sandbox: setattr(sandbox, "broken", frozenset({step})))
    outcome = await run.task
    assert (outcome.end_reason, outcome.exit_code) == (EndReason.EXITED, 7)
    assert bool(outcome.files_skipped) == (step != "destroy")


async def test_outcome_is_told_before_the_sandbox_is_removed() -> None:
    runtime, queue = FakeRuntime(), Queue()
    sandbox = FakeSandbox("s" * 32, hello, runtime)
    seen: list[tuple[int | None, list[str]]] = []

    async def told(outcome: Outcome) -> None:
        seen.append((outcome.exit_code, list(sandbox.calls)))

    await Supervision(sandbox, PLAN, FakeClock(), queue).run(told)
    assert [code for code, _ in seen] == [0]
    assert "destroy" not in seen[0][1]
    assert sandbox.calls[-1] == "destroy"


async def test_late_writer_does_not_keep_the_stream_open() -> None:
    kept: list[int] = []

    async def script(program: FakeProgram) -> ExitStatus:
        kept.append(os.dup(program._fds[1]))
        await program.stdout(b"done")
        return ExitStatus(0, None)

    run = await begin(script)
    assert (await run.output())[Stream.STDOUT] == b"done"
    assert (await run.task).end_reason is EndReason.EXITED
    os.close(kept[0])


async def test_files_over_the_limit_are_named_in_limits_hit() -> None:
    files = tuple(OutputFile(f"{n}.txt", b"", 0o644) for n in range(3))
    run = await begin(exits(0), replace(PLAN, collect=("*",)), lambda sandbox: setattr(sandbox, "files", files))
    outcome = await run.task
    assert len(outcome.files) == 2
    assert outcome.limits_hit == (LimitId.OUTPUT_FILES,)


async def test_files_are_not_collected_for_a_client_who_went_away() -> None:
    run = await begin(forever, replace(PLAN, collect=("*",)))
    await run.started()
    run.supervision.end(EndReason.CANCELLED)
    await run.task
    assert "collect" not in run.sandbox.calls


async def test_cancelling_the_task_itself_still_destroys() -> None:
    run = await begin(forever)
    await run.started()
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert run.runtime.alive == set()


async def test_counters_become_the_usage() -> None:
    usage = SandboxUsage(1.0, 0.5, 4096, 3, 10, 20, pids_denied=2)
    run = await begin(exits(0), prepare=lambda sandbox: setattr(sandbox, "counters", usage))
    outcome = await run.task
    assert outcome.usage.peak_memory_bytes == 4096
    assert outcome.usage.cpu_user_seconds == 1.0
    assert outcome.limits_hit == (LimitId.PIDS,)


def tiny() -> Redaction:
    return Redaction(Catalogue({"tiny": Source("ab{2}", 3)}).patterns(["tiny"]))


async def test_both_streams_and_the_files_are_redacted_across_the_writes() -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        for byte in (b"a", b"b", b"b"):
            await program.stdout(byte)
            await program.stderr(byte)
        return ExitStatus(0, None)

    redaction = tiny()
    file = OutputFile("out.txt", b"xabby", 0o644)
    plan = replace(PLAN, collect=("*",))
    run = await begin(script, plan, lambda sandbox: setattr(sandbox, "files", (file,)), redaction)
    assert await run.output() == dict.fromkeys(Stream, b"[redacted:tiny]")
    assert (await run.task).files == (replace(file, content=b"x[redacted:tiny]y"),)
    assert redaction.counts == (("tiny", 3),)


@pytest.mark.parametrize(("cap", "truncated"), [(29, True), (30, False)])
async def test_stream_that_markers_make_longer_than_its_cap_is_said_to_be_cut(cap: int, *, truncated: bool) -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        await program.stdout(b"abbabb")
        return ExitStatus(0, None)

    run = await begin(script, limited(stdout_bytes=cap), redaction=tiny())
    assert len((await run.output())[Stream.STDOUT]) == cap
    outcome = await run.task
    assert outcome.stdout_truncated is truncated
    assert outcome.limits_hit == ((LimitId.STDOUT,) if truncated else ())
    assert outcome.usage.stdout_bytes == 6


async def test_held_program_is_ended_by_its_deadline_only_once_it_is_released() -> None:
    run = await begin(forever)
    await run.started()
    run.supervision.hold()
    run.clock.advance(LIMITS.wall_seconds + 1)
    run.supervision.end(EndReason.CANCELLED)
    assert not run.supervision.over
    run.supervision.release()
    assert (await run.task).end_reason is EndReason.WALL_TIMEOUT, "the first that asked for it"


@pytest.mark.parametrize("reason", [EndReason.KILLED, EndReason.NODE_SHUTDOWN])
async def test_held_program_is_ended_by_an_operator_and_with_the_node(reason: EndReason) -> None:
    run = await begin(forever)
    await run.started()
    run.supervision.hold()
    run.supervision.end(reason)
    assert (await run.task).end_reason is reason


async def test_held_program_that_nothing_asked_to_end_goes_on_when_it_is_released() -> None:
    run = await begin(forever)
    await run.started()
    run.supervision.hold()
    run.supervision.release()
    assert not run.supervision.over
    run.supervision.end(EndReason.KILLED)
    await run.task


async def test_frozen_program_is_not_idle_and_takes_no_signal() -> None:
    run = await begin(forever, limited(idle_seconds=5))
    await run.started()
    run.supervision.frozen = True
    run.clock.advance(30)
    assert not run.supervision.over
    with pytest.raises(Unenforceable) as refused:
        await run.supervision.signal(signal.SIGCONT)
    assert (refused.value.reason, run.sandbox.program and run.sandbox.program.signals) == ("frozen", [])
    run.supervision.frozen = False
    run.clock.advance(6)
    assert (await run.task).end_reason is EndReason.IDLE_TIMEOUT


async def test_wall_deadline_of_a_frozen_program_goes_on() -> None:
    run = await begin(forever)
    await run.started()
    run.supervision.frozen = True
    run.clock.advance(LIMITS.wall_seconds + 1)
    assert (await run.task).end_reason is EndReason.WALL_TIMEOUT


async def test_who_waits_for_the_beginning_is_told_also_if_it_never_comes() -> None:
    run = await begin(hello, prepare=lambda sandbox: setattr(sandbox, "broken", frozenset({"start"})))
    async with asyncio.timeout(10):
        await run.supervision.begun.wait()
    assert run.supervision.over
    await run.task
