"""Events through a real OpenTelemetry collector: what it hands on is what is on record."""

import asyncio
import gzip
from collections.abc import Sequence

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from sandboxd.settings.sinks.otlp import OtlpSettings
from sandboxd.sink.base import Record, SinkUnavailable
from sandboxd.sink.otlp import OtlpSink
from sandboxd.sink.otlp_record import Export
from tests.collector import collector
from tests.fakes.http import ScriptedServer, response, says, scripted
from tests.fakes.linked import linked, nasty
from tests.hostile import KINDS
from tests.opa import free_port

TAKEN = response(b"", content="application/x-protobuf")


def attributes(pairs: Sequence[KeyValue]) -> dict[str, bytes]:
    return {pair.key: pair.value.SerializeToString() for pair in pairs}


def logs(request: ExportLogsServiceRequest) -> list[LogRecord]:
    return [log for of in request.resource_logs for scope in of.scope_logs for log in scope.log_records]


def handed_on(server: ScriptedServer) -> dict[int, LogRecord]:
    found = {}
    for asked in server.asked:
        body = gzip.decompress(asked.body) if asked.headers.get("content-encoding") == "gzip" else asked.body
        for log in logs(ExportLogsServiceRequest.FromString(body)):
            found[next(pair.value.int_value for pair in log.attributes if pair.key == "sandboxd.journal.seq")] = log
    return found


async def arrived(server: ScriptedServer, count: int) -> dict[int, LogRecord]:
    async with asyncio.timeout(30):
        while len(found := handed_on(server)) < count:
            await asyncio.sleep(0.02)
    return found


def records(first: int = 1) -> list[Record]:
    """One of each kind, with what is worst to carry in all of its texts."""
    return [linked(nasty(kind), seq=seq) for seq, kind in enumerate(KINDS, first)]


@pytest.mark.parametrize("compression", [False, True])
async def test_every_kind_of_event_comes_out_of_a_collector_as_it_went_in(*, compression: bool) -> None:
    async with scripted(says(TAKEN)) as server, collector(server.url) as made:
        sink = OtlpSink(OtlpSettings(type="otlp", url=made.http, compression=compression))
        await sink.send(())
        await sink.send(records())
        found = await arrived(server, len(KINDS))
        await sink.close()
    for seq, record in enumerate(records(), 1):
        export = Export()
        export.add(record)
        (wanted,) = logs(export.request)
        log = found[seq]
        assert attributes(log.attributes) == attributes(wanted.attributes)
        assert (log.event_name, log.severity_number, log.severity_text) == (
            wanted.event_name,
            wanted.severity_number,
            wanted.severity_text,
        )
        assert (log.time_unix_nano, log.trace_id, log.body) == (wanted.time_unix_nano, wanted.trace_id, wanted.body)


async def test_a_collector_that_was_away_gets_everything() -> None:
    port = free_port()
    sink = OtlpSink(OtlpSettings(type="otlp", url=f"http://127.0.0.1:{port}"))
    with pytest.raises(SinkUnavailable):
        await sink.send(records())
    async with scripted(says(TAKEN)) as server, collector(server.url, http_port=port):
        await sink.send(records())
        assert set(await arrived(server, len(KINDS))) == set(range(1, len(KINDS) + 1))
    with pytest.raises(SinkUnavailable):
        await sink.send(records())
    await sink.close()
