"""What every runtime does, by `runtime.base`: the same tests for the fake and for each real one."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from sandboxd.errors import RuntimeFailed, SandboxdError, Unenforceable
from sandboxd.model import (
    EnforcementRow,
    ExecPlan,
    ExitStatus,
    Guarantee,
    InputFile,
    Isolation,
    LaunchPlan,
    Limits,
    State,
)
from sandboxd.runtime.base import Runtime, Sandbox
from tests.contract.runtime import script
from tests.contract.runtime.rows import ROWS, Row, digest, limits

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)


def _identifier() -> str:
    return f"{next(_numbers):032x}"


def _launch(**change: object) -> LaunchPlan:
    plan = LaunchPlan(_identifier(), Isolation.PROCESS, digest(), limits(), "none")
    return replace(plan, **change)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Ended:
    status: ExitStatus
    stdout: bytes
    stderr: bytes


class Running:
    """One program with pipes on its three descriptors."""

    def __init__(
        self,
        sandbox: Sandbox,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        env: tuple[tuple[str, str], ...] = (),
        cwd: str = "/workspace",
        files: tuple[InputFile, ...] = (),
        own: Limits | None = None,
    ) -> None:
        self.sandbox = sandbox
        self.plan = ExecPlan(
            _identifier(), argv, (("PATH", "/usr/bin:/bin"), *env), cwd, own or limits(), stdin, files, ()
        )

    async def __aenter__(self) -> "Running":
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        self._stdin = pipes[0][1]
        self._outputs = [pipes[1][0], pipes[2][0]]
        theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
        try:
            self.pid = await self.sandbox.start(self.plan, *theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        self._write_input()
        return self

    async def __aexit__(self, *_: object) -> None:
        for fd in self._outputs:
            os.close(fd)

    def _write_input(self) -> None:
        os.write(self._stdin, self.plan.stdin)
        os.close(self._stdin)

    async def first_line(self) -> bytes:
        return await asyncio.to_thread(os.read, self._outputs[0], 100)

    async def end(self) -> Ended:
        status = await self.sandbox.wait(self.plan.execution_id)
        await self.sandbox.stop(self.plan.execution_id)
        stdout, stderr = [await asyncio.to_thread(_drain, fd) for fd in self._outputs]
        return Ended(status, stdout, stderr)


def _drain(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, 65536):
        data += piece
    return data


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    assert isinstance(request.param, Row)
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(row: Row) -> AsyncIterator[Runtime]:
    async with row.connect() as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(runtime: Runtime) -> AsyncIterator[Sandbox]:
    made = await runtime.launch(_launch())
    yield made
    await made.destroy()


async def test_probe_has_a_row_for_every_guarantee_and_a_reason_for_each_weakness(runtime: Runtime) -> None:
    capabilities = runtime.probe()
    for guarantee in Guarantee:
        found = capabilities.row(guarantee)
        assert isinstance(found, EnforcementRow)
        if found.state is State.ENFORCED:
            assert found.layers, f"{guarantee} is enforced by nothing"
        else:
            assert found.reason, f"{guarantee} is weaker and does not say why"


async def test_program_runs_with_its_streams_apart(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.ECHO) as running:
        assert running.pid > 1
        assert await running.end() == Ended(ExitStatus(0, None), b"out\n", b"err\n")


async def test_exit_code_is_the_programs(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.EXIT_3) as running:
        assert (await running.end()).status == ExitStatus(3, None)


async def test_signal_that_ended_it_is_told(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.KILL_ITSELF) as running:
        assert (await running.end()).status == ExitStatus(None, 9)


async def test_input_reaches_the_program(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.CAT, stdin=b"through\n") as running:
        assert (await running.end()).stdout == b"through\n"


@pytest.mark.parametrize(("argv", "code"), [(script.MISSING, 127), (script.NOT_EXECUTABLE, 126)])
async def test_program_that_cannot_run_ends_as_in_a_shell(argv: tuple[str, ...], code: int, sandbox: Sandbox) -> None:
    async with Running(sandbox, argv) as running:
        ended = await running.end()
    assert ended.status == ExitStatus(code, None)
    assert argv[0].encode() in ended.stderr


async def test_environment_is_the_plans(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.ENVIRONMENT, env=(("GIVEN", "value"),)) as running:
        assert (await running.end()).stdout == b"value\n"


async def test_working_directory_is_the_plans(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.DIRECTORY, cwd="/tmp") as running:
        assert (await running.end()).stdout == b"/tmp\n"


async def test_signal_reaches_the_program(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.WAIT_FOR_TERM) as running:
        assert await running.first_line() == b"up\n"
        await sandbox.signal(running.plan.execution_id, 15)
        assert (await running.end()).status == ExitStatus(15, None)


async def test_stop_ends_a_program_that_would_go_on(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.FOREVER) as running:
        assert await running.first_line() == b"up\n"
        await sandbox.stop(running.plan.execution_id)
        assert (await running.end()).status == ExitStatus(None, 9)


async def test_two_may_wait_for_one_end(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.EXIT_3) as running:
        waits = [sandbox.wait(running.plan.execution_id) for _ in range(2)]
        assert await asyncio.gather(*waits) == [ExitStatus(3, None)] * 2


async def test_cancelled_wait_leaves_the_program_running(sandbox: Sandbox) -> None:
    async with Running(sandbox, script.FOREVER) as running:
        assert await running.first_line() == b"up\n"
        waiting = asyncio.ensure_future(sandbox.wait(running.plan.execution_id))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await sandbox.stop(running.plan.execution_id)
        assert (await running.end()).status == ExitStatus(None, 9)


async def test_a_living_sandbox_runs_one_program_after_the_other(sandbox: Sandbox, row: Row) -> None:
    if not row.confines:
        pytest.skip("needs a kernel feature: processes; the fake plays one script")
    for word in ("first", "second", "third"):
        async with Running(sandbox, (script.SHELL, "-c", f"echo {word}; cat kept; echo {word} >> kept")) as running:
            ended = await running.end()
        assert ended.stdout.startswith(word.encode())
    assert ended.stdout == b"third\nfirst\nsecond\n", "the workspace stays"


async def test_input_files_are_there_and_what_matches_is_collected(sandbox: Sandbox, row: Row) -> None:
    if not row.confines:
        pytest.skip("needs a kernel feature: files; the fake has none")
    files = (InputFile("a/b.txt", b"given"), InputFile("run.sh", b"#!", 0o755))
    copy = "cp a/b.txt out.txt; ls -l run.sh; ln -s /etc/passwd link.txt; mkfifo pipe.txt; mkdir d.txt"
    async with Running(sandbox, (script.SHELL, "-c", copy), files=files) as running:
        ended = await running.end()
    assert ended.stdout.startswith(b"-rwxr-xr-x")
    collected = await sandbox.collect(("*.txt",), 1 << 20, 100)
    assert [(file.path, file.content) for file in collected.files] == [("out.txt", b"given")]
    assert not collected.limit_reached


async def test_collection_stops_at_its_caps(sandbox: Sandbox, row: Row) -> None:
    if not row.confines:
        pytest.skip("needs a kernel feature: files; the fake has none")
    make = "for i in 1 2 3 4 5 6; do printf 0123456789 > f$i; done"
    async with Running(sandbox, (script.SHELL, "-c", make)) as running:
        await running.end()
    few = await sandbox.collect(("*",), 1 << 20, 3)
    assert (len(few.files), few.limit_reached) == (3, True)
    small = await sandbox.collect(("*",), 25, 100)
    assert sum(len(file.content) for file in small.files) <= 25
    assert small.limit_reached


async def test_destroy_is_idempotent_and_ends_a_running_program(runtime: Runtime) -> None:
    sandbox = await runtime.launch(_launch())
    async with Running(sandbox, script.FOREVER) as running:
        assert await running.first_line() == b"up\n"
        first = await sandbox.destroy()
        assert await sandbox.destroy() == first


async def test_nothing_works_in_a_sandbox_that_is_gone(runtime: Runtime, row: Row) -> None:
    if not row.confines:
        pytest.skip("needs a kernel feature: processes; the fake's end is its script's")
    sandbox = await runtime.launch(_launch())
    await sandbox.destroy()
    with pytest.raises(RuntimeFailed):
        async with Running(sandbox, script.ECHO):
            pass
    with pytest.raises(RuntimeFailed):
        await sandbox.collect(("*",), 1, 1)


async def test_two_sandboxes_live_side_by_side(runtime: Runtime, row: Row) -> None:
    first, second = await asyncio.gather(runtime.launch(_launch()), runtime.launch(_launch()))
    try:
        assert first.sandbox_id != second.sandbox_id
        if row.confines and runtime.probe().row(Guarantee.ID_PER_SANDBOX).state is State.ENFORCED:
            assert first.host_uid != second.host_uid
    finally:
        await asyncio.gather(first.destroy(), second.destroy())


@pytest.mark.parametrize(
    "change",
    [{"template_digest": "0" * 64}, {"limits": "memory"}, {"limits": "pids"}, {"network": "host"}],
    ids=str,
)
async def test_launch_beyond_the_template_is_refused(change: dict[str, str], runtime: Runtime, row: Row) -> None:
    """The spawner's own check, which a daemon that lies cannot get past."""
    if not row.confines:
        pytest.skip("needs a kernel feature: a spawner; the fake makes what it is told")
    asked: dict[str, object] = dict(change)
    match change.get("limits"):
        case "memory":
            asked["limits"] = replace(limits(), memory_bytes=limits().memory_bytes + 1)
        case "pids":
            asked["limits"] = replace(limits(), pids=limits().pids + 1)
    with pytest.raises(SandboxdError):
        await runtime.launch(_launch(**asked))
    again = await runtime.launch(_launch())
    await again.destroy()


async def test_verbs_that_are_lacking_say_so(runtime: Runtime) -> None:
    for call in (runtime.snapshot("x"), runtime.restore("x")):
        with pytest.raises(Unenforceable):
            await call


async def test_usage_counts_what_ran(sandbox: Sandbox, runtime: Runtime, row: Row) -> None:
    if not row.confines:
        pytest.skip("needs a kernel feature: counters; the fake's are set by the test")
    burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    async with Running(sandbox, (script.SHELL, "-c", burn)) as running:
        await running.end()
    usage = await sandbox.destroy()
    assert usage.cpu_user_seconds > 0


async def test_oom_is_told(runtime: Runtime, row: Row) -> None:
    """Without a memory cgroup there is none to tell of: the allocation itself is refused, as the probe says."""
    if not row.confines:
        pytest.skip("needs a kernel feature: memory; the fake has none")
    held = runtime.probe().row(Guarantee.LIMIT_MEMORY)
    small = replace(limits(), memory_bytes=64 << 20)
    sandbox = await runtime.launch(_launch(limits=small))
    told = asyncio.Event()
    sandbox.on_oom(told.set)
    async with Running(sandbox, ("/usr/bin/python3", "-c", "x = bytearray(300 << 20)"), own=small) as running:
        if held.state is State.ENFORCED:
            await asyncio.wait_for(told.wait(), 60)
        try:
            ended = await running.end()
        except RuntimeFailed:  # cgroup v2 kills all that is in the group, so the sandbox ends with the program
            assert held.layers == ("cgroup v2",)
        else:
            assert ended.status.exit_code != 0
            assert held.state is State.ENFORCED or b"MemoryError" in ended.stderr
    usage = await sandbox.destroy()
    assert told.is_set() == (usage.oom_kills >= 1) == (held.state is State.ENFORCED)
    assert held.state is State.ENFORCED or (held.layers, bool(held.reason)) == (("rlimit",), True)


async def test_paused_program_goes_on_when_it_is_resumed(sandbox: Sandbox, runtime: Runtime) -> None:
    async with Running(sandbox, script.WAIT_FOR_TERM) as running:
        assert await running.first_line() == b"up\n"
        for _ in range(2):  # each is idempotent
            await runtime.pause(sandbox.sandbox_id)
        for _ in range(2):
            await runtime.resume(sandbox.sandbox_id)
        await sandbox.signal(running.plan.execution_id, 15)
        assert (await running.end()).status == ExitStatus(15, None)


async def test_paused_sandbox_can_be_looked_into_and_destroyed(sandbox: Sandbox, runtime: Runtime) -> None:
    async with Running(sandbox, script.FOREVER) as running:
        assert await running.first_line() == b"up\n"
        await runtime.pause(sandbox.sandbox_id)
        found = {name async for name, _ in runtime.examine(sandbox.sandbox_id, 1 << 20)}
        assert {"processes.json", "workspace.tar"} <= found
        await sandbox.destroy()
