"""What every sink does. A further sink joins with one row in SINKS."""

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from sandboxd.sink import stdout
from sandboxd.sink.base import Record, Sink
from tests.fakes.sink import FakeSink

RECORD = Record(
    1,
    "b",
    "n",
    "2001-09-09T01:46:40.000000001Z",
    "a.b",
    "Notice",
    (("tenant", '"\n\0'),),
    (("x", ("\ud800", 1, None)),),
)
SINKS: dict[str, Callable[[int], Sink]] = {
    "stdout": stdout.StdoutSink,
    "fake": lambda descriptor: FakeSink(),
}


@pytest.fixture(params=SINKS)
def sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        yield SINKS[request.param](nowhere.fileno())


async def test_whatever_a_tenant_wrote_is_taken(sink: Sink) -> None:
    await sink.send([RECORD])
    await sink.send([RECORD] * 256)
    await sink.close()


async def test_sending_nothing_is_fine(sink: Sink) -> None:
    await sink.send([])
    await sink.close()


async def test_a_send_may_be_given_up(sink: Sink) -> None:
    task = asyncio.create_task(sink.send([RECORD]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await sink.send([RECORD])
    await sink.close()
