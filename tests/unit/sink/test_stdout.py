import asyncio
import json
import os
from collections.abc import Iterator

import pytest

from sandboxd.sink import stdout
from sandboxd.sink.base import Record

RECORD = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "a.b", "Notice", (("tenant", "t"),), (("x", "y" * 400),))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        os.close(descriptor)


async def test_each_record_is_one_line(pipe: tuple[int, int]) -> None:
    sink = stdout.StdoutSink(pipe[1])
    await sink.send([RECORD, RECORD])
    lines = os.read(pipe[0], 65536).splitlines()
    assert [json.loads(line)["rule"] for line in lines] == ["a.b", "a.b"]
    await sink.close()


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_pipe_that_nobody_reads_does_not_block_the_loop(pipe: tuple[int, int], blocking: bool) -> None:
    os.set_blocking(pipe[1], blocking)
    sink = stdout.StdoutSink(pipe[1])
    sending = asyncio.create_task(sink.send([RECORD] * 1000))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not sending.done()
    received = b""
    while received.count(b"\n") < 1000:
        received += await asyncio.to_thread(os.read, pipe[0], 65536)
    await sending
    assert all(json.loads(line)["rule"] == "a.b" for line in received.splitlines())
    await sink.close()


async def test_a_closed_pipe_is_an_error_of_send() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = stdout.StdoutSink(writer)
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            await sink.send([RECORD])
    await sink.close()
    os.close(writer)
