"""What every sink does. A further sink joins with one row in SINKS."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from sandboxd.settings.sinks.cloudevents import CloudEventsSettings
from sandboxd.settings.sinks.falco_grpc import FalcoGrpcSettings
from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.settings.sinks.file import FileSettings
from sandboxd.settings.sinks.ocsf import OcsfSettings
from sandboxd.settings.sinks.otlp import OtlpSettings
from sandboxd.settings.sinks.syslog import SyslogSettings
from sandboxd.sink import file, ocsf, syslog
from sandboxd.sink.base import Record, Sink
from sandboxd.sink.cloudevents import BatchingCloudEventsSink, CloudEventsSink
from sandboxd.sink.falco_grpc import FalcoGrpcSink
from sandboxd.sink.falcosidekick import FalcosidekickSink
from sandboxd.sink.otlp import OtlpSink
from sandboxd.sink.stdout import StdoutSink
from tests.fakes.http import response, says, scripted
from tests.fakes.sink import FakeSink
from tests.fakes.syslog import receiving
from tests.falcosidekick_server import falcosidekick_port

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


@contextlib.asynccontextmanager
async def _stdout() -> AsyncIterator[Sink]:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        yield StdoutSink(nowhere.fileno())


@contextlib.asynccontextmanager
async def _file() -> AsyncIterator[Sink]:
    with tempfile.TemporaryDirectory() as directory:
        yield file.create(FileSettings(type="file", path=f"{directory}/events.jsonl"), "node")


@contextlib.asynccontextmanager
async def _syslog() -> AsyncIterator[Sink]:
    with receiving() as receiver:
        yield syslog.create(SyslogSettings(type="syslog", url=f"tcp://127.0.0.1:{receiver.port}"), "node")


@contextlib.asynccontextmanager
async def _falcosidekick() -> AsyncIterator[Sink]:
    with falcosidekick_port() as running:
        yield FalcosidekickSink(FalcosidekickSettings(type="falcosidekick", url=running.url))


@contextlib.asynccontextmanager
async def _falco_grpc() -> AsyncIterator[Sink]:
    with tempfile.TemporaryDirectory() as directory:
        yield FalcoGrpcSink(FalcoGrpcSettings(type="falco_grpc", socket=f"{directory}/s"))


@contextlib.asynccontextmanager
async def _cloudevents() -> AsyncIterator[Sink]:
    async with scripted(says(response(""))) as server:
        yield CloudEventsSink(CloudEventsSettings(type="cloudevents", url=server.url))


@contextlib.asynccontextmanager
async def _cloudevents_batched() -> AsyncIterator[Sink]:
    async with scripted(says(response(""))) as server:
        yield BatchingCloudEventsSink(CloudEventsSettings(type="cloudevents", url=server.url, mode="batched"))


@contextlib.asynccontextmanager
async def _ocsf() -> AsyncIterator[Sink]:
    with tempfile.TemporaryDirectory() as directory:
        yield ocsf.create(OcsfSettings(type="ocsf", path=f"{directory}/ocsf.jsonl"), "node")


@contextlib.asynccontextmanager
async def _otlp() -> AsyncIterator[Sink]:
    async with scripted(says(response(b"", content="application/x-protobuf"))) as server:
        yield OtlpSink(OtlpSettings(type="otlp", url=server.url))


@contextlib.asynccontextmanager
async def _fake() -> AsyncIterator[Sink]:
    yield FakeSink()


# Each with the receiver that it needs.
SINKS: dict[str, Callable[[], AbstractAsyncContextManager[Sink]]] = {
    "stdout": _stdout,
    "file": _file,
    "syslog": _syslog,
    "falcosidekick": _falcosidekick,
    "falco_grpc": _falco_grpc,
    "cloudevents": _cloudevents,
    "cloudevents, batched": _cloudevents_batched,
    "ocsf": _ocsf,
    "otlp": _otlp,
    "fake": _fake,
}


@pytest.fixture(params=SINKS)
async def sink(request: pytest.FixtureRequest) -> AsyncIterator[Sink]:
    async with SINKS[request.param]() as made:
        yield made


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
