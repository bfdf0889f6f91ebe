import gzip
from asyncio import StreamWriter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from sandboxd.event import ExecutionRequested
from sandboxd.settings.sinks.otlp import OtlpSettings
from sandboxd.sink.base import Record, SinkRefused, SinkUnavailable
from sandboxd.sink.otlp import MOST_BYTES, OtlpSink, create
from tests.fakes.events import made
from tests.fakes.http import Asked, Script, ScriptedServer, response, says, scripted
from tests.fakes.linked import linked

PROTOBUF = "application/x-protobuf"
TAKEN = response(b"", content=PROTOBUF)
RECORD = linked(made(ExecutionRequested))


@asynccontextmanager
async def sink_to(script: Script, **settings: object) -> AsyncIterator[tuple[OtlpSink, ScriptedServer]]:
    async with scripted(script) as server:
        made = OtlpSink(OtlpSettings(type="otlp", url=server.url, **settings))  # type: ignore[arg-type]
        try:
            yield made, server
        finally:
            await made.close()


def seqs(asked: Asked) -> list[int]:
    request = ExportLogsServiceRequest.FromString(asked.body)
    logs = [log for of in request.resource_logs for scope in of.scope_logs for log in scope.log_records]
    return [pair.value.int_value for log in logs for pair in log.attributes if pair.key == "sandboxd.journal.seq"]


def records(count: int, chars: int = 0) -> Sequence[Record]:
    event = made(ExecutionRequested, labels=tuple((str(item), "x" * 400) for item in range(chars // 400)))
    return [linked(event, seq=seq) for seq in range(1, count + 1)]


def partial(rejected: int, message: str = "") -> bytes:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    return response(answer.SerializeToString(), content=PROTOBUF)


async def test_records_arrive_in_order_in_one_request() -> None:
    async with sink_to(says(TAKEN)) as (sink, server):
        await sink.send(records(256))
    (asked,) = server.asked
    assert asked.line == "POST /v1/logs HTTP/1.1"
    assert asked.headers["content-type"] == PROTOBUF
    assert seqs(asked) == list(range(1, 257))


async def test_many_bytes_are_spread_over_requests_in_order() -> None:
    sent = records(60, chars=40_000)
    async with sink_to(says(TAKEN)) as (sink, server):
        await sink.send(sent)
    assert [seq for asked in server.asked for seq in seqs(asked)] == list(range(1, 61))
    assert len(server.asked) >= 4
    assert max(len(asked.body) for asked in server.asked) < MOST_BYTES + 50_000


async def test_nothing_to_send_asks_whether_a_receiver_is_there() -> None:
    async with sink_to(says(TAKEN)) as (sink, server):
        await sink.send(())
    assert [asked.body for asked in server.asked] == [b""]
    async with sink_to(says(response("nothing here", "404 Not Found"))) as (sink, _):
        with pytest.raises(SinkUnavailable, match=r"answered 404 to POST /v1/logs"):
            await sink.send(())


@pytest.mark.parametrize(
    "status",
    ["301 Moved", "401 Unauthorized", "404 Not Found", "408 Timeout", "429 Slow", "500 Oops", "502 Gate", "504 Late"],
)
async def test_records_are_kept_where_the_answer_is_not_about_them(status: str) -> None:
    async with sink_to(says(response("", status, "Location: /x"))) as (sink, server):
        with pytest.raises(SinkUnavailable, match=status[:3]):
            await sink.send([RECORD])
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "waits"), [("429 Slow", 7.0), ("503 Busy", 7.0), ("500 Oops", 0.0)])
async def test_a_receiver_says_when_to_come_again(status: str, waits: float) -> None:
    async with sink_to(says(response("", status, "Retry-After: 7"))) as (sink, _):
        with pytest.raises(SinkUnavailable) as caught:
            await sink.send([RECORD])
    assert caught.value.after_seconds == waits


@pytest.mark.parametrize("status", ["400 Bad Request", "413 Too Large", "422 No"])
async def test_a_body_said_to_be_bad_is_refused_for_good(status: str) -> None:
    async def takes_nothing_but_an_empty_request(writer: StreamWriter) -> None:
        writer.write(response("", status) if server.asked[-1].body else TAKEN)

    async with sink_to(takes_nothing_but_an_empty_request) as (sink, server):
        with pytest.raises(SinkRefused, match=status[:3]):
            await sink.send([RECORD])


async def test_a_receiver_that_finds_every_body_bad_is_not_believed() -> None:
    async with sink_to(says(response("", "400 Bad Request"))) as (sink, _):
        with pytest.raises(SinkUnavailable, match="400"):
            await sink.send([RECORD])
        with pytest.raises(SinkUnavailable, match="400"):
            await sink.send(())


@pytest.mark.parametrize(
    "body", ["garbage", "<html>ok</html>", '{"partialSuccess":{}}', b"\x12\x00", b"\xff" * 99, b"\x0a\x05ab"]
)
async def test_an_answer_that_is_no_receipt_is_none(body: str | bytes) -> None:
    async with sink_to(says(response(body))) as (sink, _):
        with pytest.raises(SinkUnavailable, match="no receipt"):
            await sink.send([RECORD])


@pytest.mark.parametrize("answer", [TAKEN, response("", "204 No Content"), partial(0), response(b"\x0a\x00")])
async def test_a_receipt_is_a_receipt(answer: bytes) -> None:
    async with sink_to(says(answer)) as (sink, _):
        await sink.send([RECORD])
        assert sink.dropped == 0


async def test_what_a_receiver_takes_back_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with sink_to(says(partial(3, "too \x1b[2J old" + "x" * 5000))) as (sink, server):
        await sink.send(records(10))
        assert sink.dropped == 3
    assert len(server.asked) == 1
    (line,) = caplog.records
    assert (line.levelname, line.sink, line.rejected, line.first_seq, line.last_seq) == ("ERROR", "otlp", 3, 1, 10)  # type: ignore[attr-defined]
    assert line.error.isprintable() and len(line.error) < 300  # type: ignore[attr-defined]


async def test_no_more_is_counted_than_was_sent() -> None:
    for rejected, counted in ((2**63 - 1, 10), (-5, 0)):
        async with sink_to(says(partial(rejected))) as (sink, _):
            await sink.send(records(10))
            assert sink.dropped == counted


async def test_a_remark_of_the_receiver_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with sink_to(says(partial(0, "mind the gap"))) as (sink, _):
        await sink.send([RECORD])
        await sink.send([RECORD])
        assert sink.dropped == 0
    assert [line.levelname for line in caplog.records] == ["WARNING"]


async def test_compression_is_gzip() -> None:
    async with sink_to(says(TAKEN), compression=True) as (sink, server):
        await sink.send(records(50))
    assert server.asked[0].headers["content-encoding"] == "gzip"
    server.asked[0] = Asked("", {}, gzip.decompress(server.asked[0].body))
    assert seqs(server.asked[0]) == list(range(1, 51))


async def test_no_receiver_is_unavailable() -> None:
    sink = create(OtlpSettings(type="otlp", url="http://127.0.0.1:1"), "node")
    with pytest.raises(SinkUnavailable, match="Connect"):
        await sink.send([RECORD])
    await sink.close()
