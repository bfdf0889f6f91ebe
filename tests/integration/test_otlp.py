"""Events through a real OpenTelemetry collector: what it hands on is what is on record."""

import asyncio
import gzip
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from sandboxd.settings.sinks.otlp import OtlpSettings
from sandboxd.sink.base import Record, SinkUnavailable
from sandboxd.sink.otlp import OtlpSink
from sandboxd.sink.otlp_record import Export
from tests.collector import collector
from tests.daemon import Mode, start_daemon
from tests.fakes.http import ScriptedServer, response, says, scripted
from tests.fakes.linked import linked, nasty
from tests.hostile import KINDS
from tests.ocsf import complaints
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


async def written(path: Path, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while not path.exists() or path.read_bytes().count(b"\n") < count:
            await asyncio.sleep(0.02)
    return [json.loads(line) for line in path.read_bytes().splitlines()[:count]]


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


@pytest.fixture
def log() -> Iterator[Path]:
    """A directory of the daemon's user, which that of pytest does not let through."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        if os.geteuid() == 0:
            os.chown(directory, Mode.ROOTLESS.uid, Mode.ROOTLESS.uid)
        yield Path(directory)


async def test_what_a_daemon_did_is_in_a_collector_and_in_a_file_of_ocsf_as_on_record(log: Path) -> None:
    async with scripted(says(TAKEN)) as server, collector(server.url) as made:
        settings = (
            "sinks:\n"
            f"  - {{type: otlp, url: '{made.http}', required: true, compression: true}}\n"
            f"  - {{type: ocsf, path: '{log}/ocsf.jsonl'}}\n"
        )
        with start_daemon(Mode.ROOTLESS, settings) as daemon:
            with daemon.client() as client:
                assert client.run(["/bin/echo", "hello"]).exit_code == 0
            journal = daemon.journal()
            count = len(journal)
            found = await arrived(server, count)
            lines = await written(log / "ocsf.jsonl", count)
    assert sorted(found)[:count] == [event["metadata"]["sequence"] for event in lines] == list(range(1, count + 1))
    assert [found[seq].event_name for seq in range(1, count + 1)] == [record["rule"] for record in journal]
    assert [event["metadata"]["event_code"] for event in lines] == [record["rule"] for record in journal]
    assert [complaints(event) for event in lines] == [[]] * count
    for before, event in pairwise(lines):
        assert event["attestation_list"][0]["prev_event"]["uid"] == before["metadata"]["uid"]
    assert {"execution.requested", "policy.decided", "execution.started", "execution.ended"} <= {
        str(record["rule"]) for record in journal
    }
