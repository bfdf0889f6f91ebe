import dataclasses
import json
import math

import pytest

from sandboxd.audit.line import ORIGIN, body, decode, encode
from sandboxd.sink.base import FieldValue, Record
from sandboxd.sink.falco_event import falco_event, falco_line, field_name, output_fields, time_ns
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
    ids = f"execution={'e' * 32} sandbox={'5' * 32}"
    assert event["output"] == f"01:46:40.000000001: Warning sandbox.violated (layer=seccomp {ids})"
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


@pytest.mark.parametrize("told", [HOSTILE, "a b", "x" * 33, "1", ""])
def test_an_output_sentence_tells_only_plain_words_and_our_ids(told: str) -> None:
    ids = (("execution_id", told), ("sandbox_id", "G"))
    made = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "r.s", "Notice", ids, (("verdict", told),))
    assert falco_event(made)["output"] == "01:46:40.000000001: Notice r.s"


@pytest.mark.parametrize(
    ("rule", "name", "key"),
    [
        ("execution.requested", "command", "proc.cmdline"),
        ("execution.requested", "command_hmac", "audit.command_hmac"),
        ("execution.requested", "agent_session_id", "agent.session_id"),
        ("execution.ended", "exit_code", "sandbox.exit_code"),
        ("process.exec_decided", "image", "proc.exepath"),
        ("process.exec_decided", "parent_pid", "proc.ppid"),
        ("policy.decided", "verdict", "opa.verdict"),
        ("policy.reloaded", "version", "opa.version"),
        ("daemon.started", "version", "sandbox.version"),
        ("syscall.denied", "name", "syscall.type"),
        ("syscall.denied", "errno", "evt.res"),
        ("approval.granted", "quorum", "opa.quorum"),
        ("sink.skipped", "seq", "audit.sink.seq"),
        ("journal.repaired", "segment", "audit.journal.segment"),
    ],
)
def test_falcos_name_is_taken_where_one_means_the_same(rule: str, name: str, key: str) -> None:
    assert field_name(rule, name) == key


def test_the_program_of_an_exec_has_its_name_as_well() -> None:
    assert fields_of(("image", "/usr/bin/python3.11"), rule="process.exec_decided")["proc.name"] == "python3.11"
    assert fields_of(("image", "/usr/bin/x")) == {"sandbox.image": "/usr/bin/x"}


def test_ids_that_are_empty_are_left_out() -> None:
    ids = (("tenant", "t"), ("execution_id", ""), ("sandbox_id", ""))
    made = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "r.s", "Notice", ids, (("x", ""),))
    assert falco_event(made)["output_fields"] == {
        "evt.time": 1_000_000_000_000_000_001,
        "evt.type": "r.s",
        "evt.hostname": "n",
        "audit.seq": 1,
        "audit.boot": "b",
        "audit.digest": "",
        "sandbox.tenant": "t",
        "sandbox.x": "",
    }


def test_a_string_over_512_bytes_is_cut_between_characters_and_shows_it() -> None:
    assert fields_of(("x", "é" * 257)) == {"sandbox.x": "é" * 254 + "…"}
    assert fields_of(("x", "é" * 256)) == {"sandbox.x": "é" * 256}
    assert fields_of(("x", ("é" * 200, "a" * 200))) == {"sandbox.x": "é" * 200 + "," + "a" * 108 + "…"}


def test_what_strict_readers_of_json_refuse_is_replaced() -> None:
    fields = fields_of(
        ("a", "x\ud800y"), ("b", math.nan), ("c", 2**63), ("d", -(2**63)), ("e", ("\udfff", True)), ("f", False)
    )
    assert fields == {
        "sandbox.a": "x\ufffdy",
        "sandbox.b": "nan",
        "sandbox.c": "0x8000000000000000",
        "sandbox.d": -(2**63),
        "sandbox.e": "\ufffd,True",
        "sandbox.f": False,
    }


def fields_of(*fields: tuple[str, FieldValue], rule: str = "r.s") -> dict[str, object]:
    """Without those that every event has."""
    made = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", rule, "Notice", (), fields)
    every = output_fields(dataclasses.replace(made, fields=()))
    return {name: value for name, value in output_fields(made).items() if name not in every}


def test_what_a_damaged_disk_made_of_a_record_is_still_an_event() -> None:
    made = Record(2**70, "\ud800", "\udfff" * 600, "2001-09-09T01:46:40.000000001Z", "a\ud800.b", "P\ud800", (),
                  (("n\ud800", 1),))  # fmt: skip
    event = falco_event(made)
    json.dumps(event, ensure_ascii=False).encode()
    assert (event["rule"], event["priority"], event["tags"]) == ("a\ufffd.b", "P\ufffd", ["sandboxd", "a\ufffd"])
    fields = event["output_fields"]
    assert isinstance(fields, dict)
    assert fields["evt.hostname"] == event["hostname"] == "\ufffd" * 169 + "…"
    assert (fields["sandbox.n\ufffd"], fields["audit.seq"], fields["audit.boot"]) == (1, hex(2**70), "\ufffd")


def test_lists_become_one_string() -> None:
    made = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "r.s", "Notice", (),
                  (("labels", (("a", "1"), ("b", "2"))), ("limits_hit", ("pids", "wall"))))  # fmt: skip
    fields = falco_event(made)["output_fields"]
    assert isinstance(fields, dict)
    assert (fields["sandbox.labels"], fields["sandbox.limits_hit"]) == ("a=1,b=2", "pids,wall")


def test_time_is_read_to_the_nanosecond() -> None:
    assert time_ns("1970-01-01T00:00:01.000000002Z") == 1_000_000_002
