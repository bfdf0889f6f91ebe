import random
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

import sandboxd
from sandboxd.event import Event, ExecutionEnded, ExecutionRequested, Priority, ProcessExecDecided
from sandboxd.sink.base import FieldValue, Record
from sandboxd.sink.otlp_record import Export
from tests.fakes.events import made
from tests.fakes.linked import linked
from tests.hostile import KINDS, hostile

IDS = {"tenant": "t", "subject": "uid:7", "execution_id": "e" * 32, "sandbox_id": "5" * 32, "trace_id": "a" * 32}
JOURNAL = {"log.record.uid", *(f"sandboxd.journal.{name}" for name in ("seq", "boot", "prev", "digest"))}
CONVENTIONS = {
    "container.id",
    "gen_ai.agent.name",
    "gen_ai.conversation.id",
    "gen_ai.tool.call.id",
    "gen_ai.tool.name",
    "process.command_line",
    "process.executable.path",
    "process.exit.code",
    "process.vpid",
    "process.user.id",
    "process.working_directory",
    "rpc.method",
    "user.id",
    "user.roles",
}


def sent(*records: Record) -> ExportLogsServiceRequest:
    """As a receiver reads it."""
    export = Export()
    for record in records:
        export.add(record)
    return ExportLogsServiceRequest.FromString(export.request.SerializeToString())


def log_of(record: Record) -> LogRecord:
    return sent(record).resource_logs[0].scope_logs[0].log_records[0]


def plain(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    assert kind is not None
    return tuple(map(plain, value.array_value.values)) if kind == "array_value" else getattr(value, kind)


def read(attributes: "list[KeyValue]") -> dict[str, object]:
    assert len({pair.key for pair in attributes}) == len(attributes)  # OTLP: the keys of a map are unique
    return {pair.key: plain(pair.value) for pair in attributes}


def attributes(record: Record) -> dict[str, object]:
    return read(list(log_of(record).attributes))


def test_record_carries_time_severity_and_trace() -> None:
    log = log_of(linked(made(ExecutionRequested, **IDS), time_ns=1_000_000_000_000_000_001))
    assert log.time_unix_nano == log.observed_time_unix_nano == 1_000_000_000_000_000_001
    assert (log.severity_number, log.severity_text) == (SeverityNumber.SEVERITY_NUMBER_INFO, "Informational")
    assert log.event_name == "execution.requested"
    assert log.trace_id.hex() == "a" * 32
    assert log.body.string_value == f"execution.requested (execution={'e' * 32} sandbox={'5' * 32})"


def test_resource_says_who_and_where() -> None:
    (resource_logs,) = sent(linked(made(ExecutionRequested, **IDS), node="n1")).resource_logs
    assert read(list(resource_logs.resource.attributes)) == {
        "service.name": "sandboxd",
        "service.version": sandboxd.__version__,
        "host.name": "n1",
    }
    (scope_logs,) = resource_logs.scope_logs
    assert scope_logs.scope.name == "sandboxd.audit"


def test_records_of_another_node_have_their_own_resource() -> None:
    event = made(ExecutionRequested, **IDS)
    request = sent(*(linked(event, seq=seq, node=node) for seq, node in enumerate("aabba", 1)))
    told = [
        (read(list(of.resource.attributes))["host.name"], len(of.scope_logs[0].log_records))
        for of in request.resource_logs
    ]
    assert told == [("a", 2), ("b", 2), ("a", 1)]


def test_attributes_have_the_conventions_names_where_they_mean_the_same() -> None:
    event = made(
        ProcessExecDecided,
        **IDS,
        image="/bin/ls",
        command="ls -l",
        cwd="/w",
        pid=7,
        parent_pid=1,
        remembered=False,
        reason_codes=("a", "b"),
    )
    record = linked(event)
    wanted: dict[str, object] = {
        "process.executable.path": "/bin/ls",
        "process.command_line": "ls -l",
        "process.working_directory": "/w",
        "process.vpid": 7,
        "sandboxd.parent_pid": 1,
        "container.id": "5" * 32,
        "user.id": "uid:7",
        "sandboxd.tenant": "t",
        "sandboxd.execution_id": "e" * 32,
        "sandboxd.remembered": False,
        "sandboxd.reason_codes": ("a", "b"),
        "log.record.uid": "boot-1",
        "sandboxd.journal.seq": 1,
        "sandboxd.journal.boot": "boot",
        "sandboxd.journal.prev": record.prev,
        "sandboxd.journal.digest": record.digest,
    }
    got = attributes(record)
    assert {name: got[name] for name in wanted} == wanted


def test_pairs_become_text_and_what_is_empty_is_left_out() -> None:
    got = attributes(linked(made(ExecutionEnded, redactions=(("aws", 2), ("gcp", 1)), exit_code=None, signal=0)))
    assert got["sandboxd.redactions"] == ("aws=2", "gcp=1")
    assert got["sandboxd.signal"] == 0
    assert not {"process.exit.code", "sandboxd.limits_hit", "sandboxd.detail", "user.id"} & set(got)


def test_a_record_has_one_uid_however_often_it_is_sent() -> None:
    record = linked(made(ExecutionEnded, **IDS))
    assert log_of(record) == log_of(record)


@pytest.mark.parametrize("trace_id", ["0" * 32, "A" * 32, "a" * 31, "", "ａ" * 32, "a" * 32 + "\n"])
def test_what_is_no_trace_id_is_only_an_attribute(trace_id: str) -> None:
    record = linked(made(ExecutionEnded, trace_id=trace_id))
    assert log_of(record).trace_id == b""
    assert attributes(record).get("sandboxd.trace_id", "") == trace_id


def test_every_priority_has_a_severity_and_a_more_urgent_one_a_higher() -> None:
    numbers = [
        log_of(Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "r.s", priority, (), ())).severity_number
        for priority in get_args(Priority)
    ]
    assert numbers == sorted(set(numbers), reverse=True)
    assert 0 < numbers[-1] <= numbers[0] <= 24


def test_numbers_that_protobuf_has_not_are_told_as_text() -> None:
    fields: tuple[tuple[str, FieldValue], ...] = (("big", 2**63), ("low", -(2**63)), ("real", 1.5), ("flag", True))
    got = attributes(Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "r.s", "Notice", (), fields))
    assert got["sandboxd.big"] == str(2**63)
    assert got["sandboxd.low"] == -(2**63)
    assert (got["sandboxd.real"], got["sandboxd.flag"]) == (1.5, True)


def test_size_counts_what_is_sent() -> None:
    export = Export()
    for seq in range(5, 25):
        export.add(linked(made(ExecutionRequested, **IDS, command="x" * 400), seq=seq))
    whole = len(export.request.SerializeToString())
    assert 0.95 * whole < export.size_bytes < whole
    assert (export.count, export.first_seq, export.last_seq) == (20, 5, 24)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.rule)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_whatever_anyone_wrote_stays_in_values(kind: type[Event], seed: int) -> None:
    log = log_of(linked(hostile(random.Random(seed), kind)))
    assert log.event_name == kind.rule
    assert re.fullmatch(
        rf"{kind.rule}( \((execution|sandbox)=[0-9a-f]+( sandbox=[0-9a-f]+)?\))?", log.body.string_value
    )
    ours = {f"sandboxd.{field.name}{of}" for field in fields(kind) for of in ("", "_sha256", "_count")}
    assert {pair.key for pair in log.attributes} <= CONVENTIONS | JOURNAL | ours
    assert read(list(log.attributes))


def test_every_name_of_the_conventions_is_published() -> None:
    document = (Path(__file__).resolve().parents[3] / "docs" / "sinks.md").read_text()
    assert [name for name in CONVENTIONS if f"`{name}`" not in document] == []
