import hashlib
import json
import re
from random import Random

import pytest
from cloudevents.core.formats.json import JSONFormat

from sandboxd.audit.line import Link, body, decode, encode
from sandboxd.event import DaemonStopped, Event
from sandboxd.sink.base import Record
from sandboxd.sink.cloud_event import cloud_event
from tests.fakes.events import made, violated
from tests.hostile import KINDS, hostile

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = '\n{"specversion":"9"}\x1b[2J\u2028\0\U0001f600"'


def record(event: Event, seq: int = 7) -> Record:
    return decode(encode(body(event), Link(seq - 1, "0" * 64), "boot", "a node/ü", 1_700_000_000_123_456_789)[:-1])


def test_attributes_tell_what_it_is_without_looking_inside() -> None:
    found = json.loads(cloud_event(record(violated("x"))))
    data, digest = found.pop("data"), found.pop("digest")
    assert found == {
        "specversion": "1.0",
        "id": "boot-7",
        "source": "/sandboxd/nodes/a%20node%2F%C3%BC",
        "type": "io.sandboxd.sandbox.violated",
        "subject": f"executions/{'e' * 32}",
        "time": "2023-11-14T22:13:20.123456789Z",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000007",
        "partitionkey": "e" * 32,
        "severitytext": "Warning",
        "severitynumber": 13,
    }
    assert (data["seq"], data["fields"]["detail"], len(digest)) == (7, "x", 64)


def test_data_is_the_line_of_the_journal_and_its_digest_can_be_checked() -> None:
    made = record(violated(HOSTILE))
    found = json.loads(cloud_event(made))
    line = json.dumps(found["data"], sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(line).hexdigest() == found["digest"] == made.digest


def test_the_subject_is_the_sandbox_where_there_is_no_execution_and_nothing_where_there_is_neither() -> None:
    assert json.loads(cloud_event(record(made(type(violated()), sandbox_id="5" * 32))))["subject"] == (
        f"sandboxes/{'5' * 32}"
    )
    assert not {"subject", "partitionkey"} & json.loads(cloud_event(record(made(DaemonStopped)))).keys()


def test_a_trace_goes_on_from_the_event() -> None:
    one = record(made(DaemonStopped, trace_id=TRACE))
    assert json.loads(cloud_event(one))["traceparent"] == f"00-{TRACE}-{one.digest[:16]}-00"


@pytest.mark.parametrize("trace_id", ["", "0" * 32, TRACE.upper(), f"{TRACE}0", "t" * 32])
def test_what_is_no_trace_gets_no_traceparent(trace_id: str) -> None:
    assert "traceparent" not in json.loads(cloud_event(record(made(DaemonStopped, trace_id=trace_id))))


@pytest.mark.parametrize("detail", [HOSTILE, "\ud800", "\U0001f600\udfff", "x" * 100_000])
def test_tenant_text_stays_in_data_and_everyone_can_read_it(detail: str) -> None:
    hostile = violated(detail, tenant=detail)
    encoded = cloud_event(record(hostile))
    assert re.fullmatch(rb"[ -~]+", encoded)
    found, plain = json.loads(encoded), json.loads(cloud_event(record(violated())))
    json.dumps(found, ensure_ascii=False).encode()  # no half of a surrogate pair
    differing = {name for name in found.keys() | plain.keys() if found.get(name) != plain.get(name)}
    assert differing == {"data", "digest"}
    JSONFormat().read(None, encoded)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.rule)
def test_the_projects_own_library_takes_every_kind_of_event_whether_empty_or_hostile(kind: type[Event]) -> None:
    for event in (made(kind, execution_id="ab", trace_id=TRACE), *(hostile(Random(seed), kind) for seed in range(3))):
        encoded = cloud_event(record(event))
        json.dumps(json.loads(encoded), ensure_ascii=False).encode()
        found = JSONFormat().read(None, encoded)
        assert found.get_type() == f"io.sandboxd.{kind.rule}"
        assert found.get_specversion() == "1.0"


def test_names_of_attributes_are_what_every_transport_can_carry() -> None:
    found = json.loads(cloud_event(record(made(type(violated()), execution_id="ab", trace_id=TRACE))))
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in found)
    assert len(found) == 14
