"""Limits of output: kept up to the cap, counted beyond it, ended at the limit; the daemon's memory stays flat."""

import contextlib
import itertools

import pytest

from sandboxd.client import Chunk, Client, EndReason, Result
from tests import proc
from tests.daemon import RunningDaemon

MIB = 1 << 20
FLAT = 48 * MIB  # far below what the programs write, far above what buffers and the allocator take


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_beyond_the_cap_is_dropped_and_flagged(stream: str, client: Client) -> None:
    redirect = {"stdout": "", "stderr": " >&2"}[stream]
    result = client.run(
        ["/bin/sh", "-c", f"head -c 100000 /dev/zero{redirect}; echo end{redirect}"], limits={f"{stream}_bytes": 1000}
    )
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 0)
    assert getattr(result, stream) == bytes(1000)
    assert getattr(result, f"{stream}_truncated")
    assert getattr(result.usage, f"{stream}_bytes") == 100_004
    assert stream in result.limits_hit


def test_output_at_the_cap_is_whole_and_not_flagged(client: Client) -> None:
    result = client.run(["/bin/sh", "-c", "head -c 1000 /dev/zero"], limits={"stdout_bytes": 1000})
    assert len(result.stdout) == 1000
    assert not result.stdout_truncated
    assert "stdout" not in result.limits_hit


FLOODS = {
    "yes": "yes",
    "no-newline": "cat /dev/zero",
    "both": "yes >&2 & cat /dev/zero",
    "children": "for i in 1 2 3 4; do setsid yes & done; wait",
}


@pytest.mark.parametrize("script", FLOODS.values(), ids=FLOODS.keys())
def test_r14_flood_ends_at_the_output_limit_with_the_daemon_flat(
    script: str, daemon: RunningDaemon, client: Client
) -> None:
    pid = proc.daemon_pid(daemon.process.pid)
    client.run(["/bin/sh", "-c", "head -c 1000000 /dev/zero"])
    before = proc.resident_bytes(pid)
    limit = int(dict(client.profile("default").limits)["output_bytes"])
    result = client.run(["/bin/sh", "-c", script], limits={"output_bytes": min(limit, 256 * MIB)})
    assert result.end_reason is EndReason.OUTPUT_LIMIT
    assert result.usage.stdout_bytes + result.usage.stderr_bytes >= min(limit, 256 * MIB)
    assert proc.daemon_pid(daemon.process.pid) == pid
    assert proc.resident_bytes(pid) - before < FLAT


def test_r14_slow_reader_slows_the_program_and_not_the_daemon(daemon: RunningDaemon, client: Client) -> None:
    """The program could write without end; nobody reads, so it must come to stand still."""
    pid = proc.daemon_pid(daemon.process.pid)
    before = proc.resident_bytes(pid)
    with contextlib.closing(client.execute(["/bin/sh", "-c", "exec cat /dev/zero"])) as events:
        next(events)
        first = next(events)
        assert isinstance(first, Chunk)
        assert client.run(["/bin/echo", "others run"]).stdout == b"others run\n"
        assert proc.resident_bytes(pid) - before < FLAT
        rest = list(itertools.islice(events, 10))
        assert all(isinstance(event, Chunk | Result) for event in rest)


def test_r15_input_that_is_never_read_does_no_harm(client: Client) -> None:
    result = client.run(["/bin/true"], stdin=bytes(3 * MIB))
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 0)


def test_input_arrives_whole(client: Client) -> None:
    data = bytes(range(256)) * 4096
    assert client.run(["/bin/cat"], stdin=data).stdout == data


def test_offsets_of_chunks_add_up(client: Client) -> None:
    position = {"stdout": 0, "stderr": 0}
    for event in client.execute(["/bin/sh", "-c", "for i in 1 2 3 4 5; do echo $i; echo $i >&2; done"]):
        if isinstance(event, Chunk):
            assert event.offset == position[event.stream]
            position[event.stream] += len(event.data)
    assert position == {"stdout": 10, "stderr": 10}
