import json

import pytest

from sandboxd.audit.line import ORIGIN, body, decode, encode
from sandboxd.sink.base import Record
from sandboxd.sink.falco_event import falco_event, falco_line, time_ns
from tests.fakes.events import violated

HOSTILE = '\n{"rule":"fake"}\x1b[2J\u2028\0\ud800"'


def record(detail: str = "x", tenant: str = "local") -> Record:
    line = encode(body(violated(detail, tenant=tenant)), ORIGIN, "boot", "node", 1_000_000_000_000_000_001)
    return decode(line[:-1])


def test_event_has_falcos_shape() -> None:
    event = falco_event(record())
    assert list(event) == ["time", "rule", "priority", "source", "hostname", "output", "tags", "output_fields"]
    assert event["time"] == "2001-09-09T01:46:40.000000001Z"
    assert (event["rule"], event["priority"], event["source"]) == ("sandbox.violated", "Warning", "sandboxd")
    assert str(event["output"]).startswith("01:46:40.000000001: Warning sandbox.violated")
    assert event["tags"] == ["sandboxd", "sandbox"]
    fields = event["output_fields"]
    assert isinstance(fields, dict)
    assert fields["evt.time"] == 1_000_000_000_000_000_001
    assert (fields["correlation.id"], fields["container.id"]) == ("e" * 32, "5" * 32)
    assert all(value is None or isinstance(value, str | int | float) for value in fields.values())


@pytest.mark.parametrize("detail", [HOSTILE, "x" * 1_000_000])
def test_tenant_text_stays_in_values(detail: str) -> None:
    event = falco_event(record(detail, tenant=HOSTILE))
    plain = falco_event(record())
    for key in ("rule", "priority", "source", "hostname", "output", "tags"):
        assert event[key] == plain[key]
    line = falco_line(record(detail, tenant=HOSTILE))
    assert line.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert json.loads(line) == event
    assert len(line) < 4096


def test_lists_become_one_string() -> None:
    made = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "r.s", "Notice", (),
                  (("labels", (("a", "1"), ("b", "2"))), ("limits_hit", ("pids", "wall"))))  # fmt: skip
    fields = falco_event(made)["output_fields"]
    assert isinstance(fields, dict)
    assert (fields["sandbox.labels"], fields["sandbox.limits_hit"]) == ("a=1,b=2", "pids,wall")


def test_time_is_read_to_the_nanosecond() -> None:
    assert time_ns("1970-01-01T00:00:01.000000002Z") == 1_000_000_002
