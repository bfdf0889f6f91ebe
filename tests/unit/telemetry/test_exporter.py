"""Against real servers on loopback: what a collector gets, and that no collector is in anybody's way."""

import asyncio
import contextlib
import logging
from asyncio import StreamWriter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client import Gauge
from prometheus_client.registry import Collector, CollectorRegistry

from sandboxd.errors import ConfigInvalid
from sandboxd.settings.telemetry import Otlp, Telemetry
from sandboxd.telemetry.exporter import (
    ATTEMPTS,
    LINGER_SECONDS,
    LONGEST_PAUSE_SECONDS,
    METRICS,
    MOST_TOGETHER,
    MOST_WAITING,
    TRACES,
    Exporter,
)
from sandboxd.telemetry.timeline import Timeline, Untraced
from sandboxd.trace_context import TraceContext
from tests.fakes.http import Script, ScriptedServer, response, says, says_and_closes, scripted
from tests.opa import free_port
from tests.unit.telemetry.timelines import CALLED, TRACE, ending

OK = says(response(""))
NOWHERE = "http://127.0.0.1:1"


class Pauses:
    """Sleeps that are over at once, and are remembered."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)

    @property
    def retries(self) -> list[float]:
        """After the first batch has been waited for."""
        assert self.seconds[0] == LINGER_SECONDS
        return self.seconds[1:]


def made(url: str, pauses: Pauses | None = None, *, timeout: float = 60.0, **settings: float) -> Exporter:
    otlp = Otlp(url=url, timeout_seconds=timeout)
    telemetry = Telemetry(otlp=otlp, **settings)  # type: ignore[arg-type]
    return Exporter(telemetry, otlp, "1.2.3", "node-a", sleep=pauses or Pauses(), jitter=lambda: 1.0)


@contextlib.asynccontextmanager
async def sending(script: Script, pauses: Pauses | None = None) -> AsyncIterator[tuple[Exporter, ScriptedServer]]:
    async with scripted(script) as server:
        exporter = made(server.url, pauses)
        exporter.begin(None)
        try:
            yield exporter, server
        finally:
            await exporter.close(60.0)


def over(exporter: Exporter, count: int = 1) -> None:
    """So many executions that are over."""
    for _ in range(count):
        trace = exporter.trace(CALLED)
        assert isinstance(trace, Timeline)
        trace.close(ending())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


def spans_in(body: bytes) -> int:
    message = ExportTraceServiceRequest.FromString(body)
    return len(message.resource_spans[0].scope_spans[0].spans)


async def test_executions_that_are_over_reach_the_collector_together() -> None:
    async with sending(OK) as (exporter, server):
        over(exporter, 3)
        await until(lambda: exporter.sent[TRACES] == 3)
        (asked,) = server.asked
        assert asked.line == "POST /v1/traces HTTP/1.1"
        assert asked.headers["content-type"] == "application/x-protobuf"
        assert spans_in(asked.body) == 3
        assert exporter.waiting == 0


async def test_many_go_in_pieces_that_keep_the_loop_free() -> None:
    async with sending(OK) as (exporter, server):
        over(exporter, 2 * MOST_TOGETHER + 1)
        await until(lambda: exporter.waiting == 0)
        assert [spans_in(asked.body) for asked in server.asked] == [MOST_TOGETHER, MOST_TOGETHER, 1]


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "503 Unavailable", "504 Timeout"])
async def test_one_that_is_busy_is_tried_again(status: str) -> None:
    answers = [response("", status), response("", status), response("")]

    async def script(writer: StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with sending(script, pauses := Pauses()) as (exporter, server):
        over(exporter)
        await until(lambda: exporter.sent[TRACES] == 1)
        assert (exporter.failures[TRACES], exporter.dropped[TRACES], pauses.retries) == (2, 0, [1.0, 2.0])
        assert len({asked.body for asked in server.asked}) == 1


@pytest.mark.parametrize(("asked_for", "waited"), [("7", 7.0), ("100000", LONGEST_PAUSE_SECONDS), ("soon", 1.0)])
async def test_it_waits_as_long_as_it_is_asked_to_within_reason(asked_for: str, waited: float) -> None:
    answers = [response("", "429 Too Many Requests", f"Retry-After: {asked_for}"), response("")]

    async def script(writer: StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with sending(script, pauses := Pauses()) as (exporter, _):
        over(exporter)
        await until(lambda: exporter.sent[TRACES] == 1)
        assert pauses.retries == [waited]


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "404 Not Found", "301 Moved", "500 Oops"])
async def test_what_is_refused_for_good_is_dropped_at_once_and_said_once(
    status: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sending(says(response("", status, "Location: http://127.0.0.1:1/"))) as (exporter, server):
        for number in (1, 2, 3):
            over(exporter)
            await until(lambda number=number: exporter.dropped[TRACES] == number)  # type: ignore[misc]
        assert len(server.asked) == 3
        assert [record.message for record in caplog.records] == ["telemetry is dropped"]


@pytest.mark.parametrize(
    "script",
    [
        says_and_closes(b""),
        says_and_closes(b"HTTP/1.1 200"),
        says_and_closes(b"\xff" * 5000),
        says_and_closes(response("", "503 Unavailable")),
    ],
)
async def test_a_broken_collector_loses_what_it_was_sent_and_nothing_else(script: Script) -> None:
    async with sending(script) as (exporter, _):
        over(exporter)
        await until(lambda: exporter.dropped[TRACES] == 1)
        assert (exporter.failures[TRACES], exporter.sent[TRACES], exporter.waiting) == (ATTEMPTS, 0, 0)
        over(exporter)
        await until(lambda: exporter.dropped[TRACES] == 2)


async def test_one_that_comes_back_gets_what_came_since(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    exporter = made(f"http://127.0.0.1:{port}")
    exporter.begin(None)
    over(exporter)
    await until(lambda: exporter.dropped[TRACES] == 1)
    server = await asyncio.start_server(_answering, "127.0.0.1", port)
    over(exporter, 2)
    await until(lambda: exporter.sent[TRACES] == 2)
    await exporter.close(60.0)
    server.close()
    told = [record.message for record in caplog.records]
    assert told == ["telemetry is dropped", "the collector takes telemetry again"]


async def _answering(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            writer.write(response(""))


async def test_of_too_many_the_newest_are_dropped_and_counted_and_nobody_waits() -> None:
    exporter = made(NOWHERE)
    over(exporter, MOST_WAITING + 5)
    assert (exporter.waiting, exporter.dropped[TRACES]) == (MOST_WAITING, 5)
    await exporter.close(60.0)
    assert exporter.dropped[TRACES] == MOST_WAITING + 5


async def test_a_silent_collector_is_given_up_in_time() -> None:
    async def silent(_: StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with scripted(silent) as server:
        exporter = made(server.url, timeout=0.05)
        exporter.begin(None)
        over(exporter)
        await until(lambda: exporter.dropped[TRACES] == 1)
        assert exporter.failures[TRACES] == ATTEMPTS
        await exporter.close(60.0)


async def test_spans_that_the_collector_rejects_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    partial = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2))
    async with sending(says(response(partial.SerializeToString()))) as (exporter, _):
        for number in (1, 2):
            over(exporter)
            await until(lambda number=number: exporter.sent[TRACES] == number)  # type: ignore[misc]
    assert [record.message for record in caplog.records] == ["the collector rejects spans"]


async def test_an_answer_that_is_no_message_is_an_answer() -> None:
    async with sending(says(response(b"\xff\xff\xff"))) as (exporter, _):
        over(exporter)
        await until(lambda: exporter.sent[TRACES] == 1)


async def test_metrics_are_told_each_time_the_interval_is_over() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", "g", registry=registry)
    readings: list[float] = []
    async with scripted(OK) as server:
        exporter = made(server.url, metrics_seconds=7.0)
        exporter.begin(registry)
        for number in (1.0, 2.0):
            gauge.set(number)
            before = exporter.sent[METRICS]
            await until(lambda before=before: exporter.sent[METRICS] > before + 1)  # type: ignore[misc]
            readings.append(_gauge(server.asked[-1].body))
        await exporter.close(60.0)
    assert readings == [1.0, 2.0]
    assert {asked.line for asked in server.asked} == {"POST /v1/metrics HTTP/1.1"}


def _gauge(body: bytes) -> float:
    message = ExportMetricsServiceRequest.FromString(body)
    return message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].as_double


async def test_numbers_that_cannot_be_read_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Collector):
        def collect(self) -> list[object]:  # type: ignore[override]
            raise KeyError("x")

    registry = CollectorRegistry(auto_describe=False)
    exporter = made(NOWHERE)
    registry.register(Broken())
    with caplog.at_level(logging.CRITICAL):
        exporter.begin(registry)
        await until(lambda: exporter.dropped[METRICS] >= 2)
    registry.unregister(next(iter(registry._collector_to_names)))
    await exporter.close(60.0)


async def test_what_is_left_at_the_end_is_sent_before_it() -> None:
    async def never(_seconds: float) -> None:
        await asyncio.Event().wait()

    registry = CollectorRegistry()
    Gauge("g", "g", registry=registry).set(3)
    async with scripted(OK) as server:
        otlp = Otlp(url=server.url)
        exporter = Exporter(Telemetry(otlp=otlp), otlp, "1", "n", sleep=never)
        exporter.begin(registry)
        over(exporter, MOST_TOGETHER + 1)
        await asyncio.sleep(0)
        before = asyncio.all_tasks()
        await exporter.close(60.0)
        assert [asked.line.split()[1] for asked in server.asked] == ["/v1/traces", "/v1/traces", "/v1/metrics"]
        assert exporter.sent == {TRACES: MOST_TOGETHER + 1, METRICS: 1}
        assert len(asyncio.all_tasks()) < len(before)


async def test_a_collector_that_hangs_at_the_end_holds_nobody_up() -> None:
    async def silent(_: StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with scripted(silent) as server:
        exporter = made(server.url)
        exporter.begin(None)
        over(exporter, 3)
        await until(lambda: server.connections == 1)
        async with asyncio.timeout(30):
            await exporter.close(0.05)
        assert (exporter.dropped[TRACES], exporter.waiting) == (3, 0)


@pytest.mark.parametrize(("ratio", "sampled"), [(0.0, 0), (0.25, 256), (1.0, 1024)])
async def test_of_callers_in_no_trace_the_ratio_is_sampled_by_the_traces_id(ratio: float, sampled: int) -> None:
    exporter = made(NOWHERE, sample_ratio=ratio)
    ids = [f"{'f' * 18}{number * 16**14 // 1024:014x}" for number in range(1024)]
    found = [isinstance(exporter.trace(TraceContext(trace_id)), Timeline) for trace_id in ids]
    assert sum(found) == sampled
    assert found == sorted(found, reverse=True), "the same ones on every node"
    await exporter.close(1.0)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_of_the_others_the_caller_says_it(ratio: float) -> None:
    exporter = made(NOWHERE, sample_ratio=ratio)
    assert isinstance(exporter.trace(CALLED), Timeline)
    assert isinstance(exporter.trace(TraceContext(TRACE, CALLED.parent_id)), Untraced)
    await exporter.close(1.0)


async def test_without_traces_nothing_is_noted() -> None:
    otlp = Otlp(url=NOWHERE)
    exporter = Exporter(Telemetry(otlp=otlp, traces=False), otlp, "1", "n")
    assert isinstance(exporter.trace(CALLED), Untraced)
    await exporter.close(1.0)


async def test_a_ca_that_is_none_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    otlp = Otlp(url="https://127.0.0.1:1", ca=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigInvalid, match=r"telemetry\.otlp\.ca"):
        Exporter(Telemetry(otlp=otlp), otlp, "1", "n")
