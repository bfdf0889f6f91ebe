import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.errors import InvalidRequest, RuntimeFailed
from sandboxd.model import ExecPlan, ExitStatus, InputFile, LimitId, OutputFile
from sandboxd.runtime.process_sandbox import ProcessSandbox
from sandboxd.spawner import wire
from tests.unit.runtime.peers import HOST_UID, SANDBOX_ID, Peer, pair
from tests.unit.test_supervise import LIMITS

EXECUTION = "e" * 32
PLAN = ExecPlan(EXECUTION, ("/bin/true",), (("PATH", "/bin"),), "/workspace", LIMITS, b"", (), ())


@dataclass
class Made:
    sandbox: ProcessSandbox
    init: Peer
    kills: list[str]

    async def started(self) -> None:
        start = asyncio.create_task(self.sandbox.start(PLAN, 0, 1, 2))
        _, fds = await self.init.receive(wire.Execute)
        wire.close_all(fds)
        self.init.send(wire.Started(EXECUTION, 2))
        assert await start == 2

    def exit(self, wait_status: int, limits_reached: tuple[str, ...] = ()) -> None:
        self.init.send(wire.Exited(EXECUTION, wait_status, 0.25, 0.5, 4096, limits_reached))


def make(without_cgroup: frozenset[str] = frozenset()) -> Made:
    ours, init = pair()
    kills: list[str] = []
    fds = {"init": ours.detach()}
    sandbox = ProcessSandbox(SANDBOX_ID, HOST_UID, fds, without_cgroup, lambda: kills.append(SANDBOX_ID))
    return Made(sandbox, init, kills)


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    it = make()
    yield it
    it.sandbox.lost()
    it.init.close()


@pytest.mark.parametrize(
    ("wait_status", "status"), [(0, ExitStatus(0, None)), (3 << 8, ExitStatus(3, None)), (9, ExitStatus(None, 9))]
)
async def test_program_is_started_and_its_end_is_the_kernels_word(
    made: Made, wait_status: int, status: ExitStatus
) -> None:
    await made.started()
    made.exit(wait_status)
    assert await made.sandbox.wait(EXECUTION) == status
    usage = made.sandbox.usage()
    assert (usage.cpu_user_seconds, usage.cpu_system_seconds, usage.peak_memory_bytes) == (0.25, 0.5, 4096)


async def test_program_gets_its_three_descriptors_and_its_rlimits(made: Made, tmp_path: Path) -> None:
    with (tmp_path / "stdio").open("wb") as file:
        start = asyncio.create_task(made.sandbox.start(PLAN, file.fileno(), file.fileno(), file.fileno()))
        asked, fds = await made.init.receive(wire.Execute)
        assert [os.path.sameopenfile(fd, file.fileno()) for fd in fds] == [True] * 3
        wire.close_all(fds)
    assert (asked.argv, asked.env, asked.cwd) == (PLAN.argv, PLAN.env, PLAN.cwd)
    assert (asked.open_files, asked.file_size_bytes) == (LIMITS.open_files, LIMITS.file_size_bytes)
    assert (asked.memory_bytes, asked.pids) == (0, 0)  # a cgroup bounds them
    made.init.send(wire.Started(EXECUTION, 2))
    await start


async def test_limits_without_a_cgroup_become_rlimits() -> None:
    made = make(frozenset({"memory", "pids"}))
    start = asyncio.create_task(made.sandbox.start(PLAN, 0, 1, 2))
    asked, fds = await made.init.receive(wire.Execute)
    wire.close_all(fds)
    assert (asked.memory_bytes, asked.pids) == (LIMITS.memory_bytes, LIMITS.pids)
    made.init.close()
    with pytest.raises(RuntimeFailed):
        await start
    made.sandbox.lost()


async def test_program_waits_for_its_files_and_does_not_start_without_them(made: Made) -> None:
    plan = ExecPlan(EXECUTION, ("/bin/true",), (), "/workspace", LIMITS, b"", (InputFile("a/b", b"data", 0o600),), ())
    start = asyncio.create_task(made.sandbox.start(plan, 0, 1, 2))
    put, (fd,) = await made.init.receive(wire.Put)
    assert (put.path, put.mode, os.pread(fd, 100, 0)) == ("a/b", 0o600, b"data")
    os.close(fd)
    made.init.send(wire.Answer(put.request_id, 28, "no space", ()))
    with pytest.raises(InvalidRequest, match="a/b"):
        await start


async def test_confinement_that_fails_is_a_failure_of_the_runtime_not_an_exit_code(made: Made) -> None:
    start = asyncio.create_task(made.sandbox.start(PLAN, 0, 1, 2))
    _, fds = await made.init.receive(wire.Execute)
    wire.close_all(fds)
    made.init.send(wire.ExecFailed(EXECUTION, "landlock", 1, "not permitted"))
    with pytest.raises(RuntimeFailed) as caught:
        await start
    assert caught.value.reason == "confinement_failed"


async def test_limits_that_init_saw_reached_are_told_and_made_up_ones_are_not(made: Made) -> None:
    await made.started()
    made.exit(0, (LimitId.OPEN_FILES.value, "made up"))
    await made.sandbox.wait(EXECUTION)
    assert made.sandbox.limits_reached() == (LimitId.OPEN_FILES,)


async def _collect(made: Made, opened: wire.FileOpened, source: Path, max_bytes: int = 100) -> tuple[OutputFile, ...]:
    collecting = asyncio.create_task(made.sandbox.collect(("*",), max_bytes, 2))
    asked, _ = await made.init.receive(wire.Collect)
    fd = os.open(source, os.O_RDONLY)
    made.init.send(wire.FileOpened(asked.request_id, opened.path, opened.size, opened.mode), (fd,))
    os.close(fd)
    made.init.send(wire.Answer(asked.request_id, 0, "", ()))
    return (await collecting).files


async def test_collected_file_is_read_from_its_descriptor_up_to_the_size_that_counts(
    made: Made, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"0123456789 and it grew meanwhile")
    files = await _collect(made, wire.FileOpened(0, "out/f", 10, 0o104755), tmp_path / "f")
    assert files == (OutputFile("out/f", b"0123456789", 0o755),)


@pytest.mark.parametrize(
    ("path", "size", "source"),
    [
        pytest.param("../f", 1, "f", id="path upwards"),
        pytest.param("/f", 1, "f", id="absolute path"),
        pytest.param("f", 101, "f", id="over the cap"),
        pytest.param("f", -1, "f", id="negative size"),
        pytest.param("f", 1, ".", id="directory"),
    ],
)
async def test_file_that_init_may_not_hand_out_ends_the_sandbox(
    made: Made, tmp_path: Path, path: str, size: int, source: str
) -> None:
    (tmp_path / "f").write_bytes(b"x" * 200)
    with pytest.raises(RuntimeFailed):
        await _collect(made, wire.FileOpened(0, path, size, 0o644), tmp_path / source)
    await made.init.ended()


async def test_stopping_waits_until_init_says_that_none_is_left(made: Made) -> None:
    stopping = asyncio.create_task(made.sandbox.stop(EXECUTION))
    asked, _ = await made.init.receive(wire.Stop)
    assert not stopping.done()
    made.init.send(wire.Answer(asked.request_id, 0, "", ()))
    await stopping


async def test_signal_goes_to_that_execution(made: Made) -> None:
    await made.sandbox.signal(EXECUTION, 15)
    assert (await made.init.receive(wire.Signal))[0] == wire.Signal(EXECUTION, 15)


async def test_everybody_who_waits_hears_that_init_died(made: Made) -> None:
    await made.started()
    waiting = asyncio.create_task(made.sandbox.wait(EXECUTION))
    made.init.close()
    for call in (waiting, made.sandbox.stop(EXECUTION), made.sandbox.collect(("*",), 1, 1)):
        with pytest.raises(RuntimeFailed) as caught:
            await call
        assert caught.value.reason == "sandbox_lost"
    with pytest.raises(RuntimeFailed):
        await made.sandbox.start(PLAN, 0, 1, 2)


async def test_init_that_sends_what_only_a_spawner_may_is_not_believed(made: Made) -> None:
    await made.started()
    made.init.send(wire.Drain(0.0))
    with pytest.raises(RuntimeFailed):
        await made.sandbox.wait(EXECUTION)


async def test_destroyed_sandbox_keeps_its_last_numbers(made: Made) -> None:
    destroying = asyncio.create_task(made.sandbox.destroy())
    await asyncio.sleep(0)
    assert made.kills == [SANDBOX_ID]
    made.sandbox.ended((("peak_pids", 7.0),))
    assert (await destroying).peak_pids == 7
    assert made.sandbox.usage().peak_pids == 7
    assert (await made.sandbox.destroy()).peak_pids == 7
    assert made.kills == [SANDBOX_ID]
