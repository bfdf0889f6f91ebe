import hashlib
import json
import random
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd import event as events
from sandboxd.audit.line import decode
from sandboxd.event import Event
from sandboxd.sink.base import Record
from sandboxd.sink.ocsf_event import ocsf_line
from sandboxd.sink.ocsf_kinds import ACTIONS, SEVERITIES
from tests.fakes.events import made
from tests.fakes.linked import linked, nasty
from tests.hostile import KINDS, hostile
from tests.ocsf import complaints

Tree = dict[str, Any]  # JSON
PLACED = {"pid", "parent_pid", "host_uid", "exit_code", "count"}  # numbers that the schema has a place for
IDS = {
    "tenant": "t",
    "subject": "uid:7",
    "execution_id": "e" * 32,
    "sandbox_id": "5" * 32,
    "policy_revision": "r1",
    "trace_id": "a" * 32,
}


def told(record: Record, *, raw_data: bool = True) -> Tree:
    """As a receiver reads it."""
    line = ocsf_line(record, raw_data=raw_data)
    assert line.count(b"\n") == 1 and line.isascii()
    parsed: Tree = json.loads(line)
    assert complaints(parsed) == []
    return parsed


def of(kind: type[Event], **values: object) -> Tree:
    return told(linked(made(kind, **{**IDS, **values})))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.rule)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_whatever_anyone_wrote_is_an_event_of_the_schema(kind: type[Event], seed: int) -> None:
    record = linked(hostile(random.Random(seed), kind))
    found = told(record)
    # A strict reader takes it: all text can be written as UTF-8.
    json.dumps(found, ensure_ascii=False).encode()
    assert found["message"] == found["metadata"]["event_code"] == kind.rule
    assert found["severity"] == SEVERITIES[record.priority][1]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.rule)
def test_nothing_of_a_record_is_lost(kind: type[Event]) -> None:
    texts = {field.name for field in fields(kind) if field.type in (str, "str")}
    record = linked(made(kind, **{name: f"mark-{name}" for name in texts}))
    found = str(told(record, raw_data=False))
    assert [name for name in texts if f"mark-{name}" not in found] == []
    unmapped = told(linked(nasty(kind)), raw_data=False)["unmapped"]
    assert {field.name for field in fields(kind)} - texts - unmapped.keys() <= PLACED


def test_record_is_told_as_it_was_written() -> None:
    record = linked(made(events.DaemonStarted, version="1"), seq=7, time_ns=1_000_000_000_123_456_789, prev="ab" * 32)
    found = told(record)
    assert found["time"] == 1_000_000_000_123
    assert found["metadata"]["original_time"] == "2001-09-09T01:46:40.123456789Z"
    assert (found["metadata"]["uid"], found["metadata"]["sequence"]) == (record.digest, 7)
    assert found["unmapped"]["journal"] == {"seq": 7, "boot": "boot", "prev": "ab" * 32, "digest": record.digest}
    line = str(found["raw_data"]).encode()
    assert hashlib.sha256(line).hexdigest() == found["raw_data_hash"]["value"] == record.digest
    assert decode(line) == record
    assert found["raw_data_size"] == len(line)
    assert "raw_data" not in told(record, raw_data=False)


def test_each_event_refers_to_the_one_before_it_in_the_chain() -> None:
    first = linked(made(events.DaemonStarted))
    second = linked(made(events.DaemonStopped), seq=2, prev=first.digest)
    (one,), (two,) = (told(record)["attestation_list"] for record in (first, second))
    assert "prev_event" not in one
    assert two["prev_event"]["uid"] == told(first)["metadata"]["uid"]
    assert two["prev_event"]["fingerprint"] == one["fingerprint"]
    assert (two["fingerprint"]["value"], two["chain_uid"]) == (second.digest, "node")


def test_a_program_that_may_run_is_a_launch() -> None:
    found = of(
        events.ProcessExecDecided,
        image="/usr/bin/curl",
        command="curl x",
        cwd="/w",
        pid=7,
        parent_pid=1,
        verdict="deny",
        engine="rego",
        reason_codes=("no_net",),
    )
    assert (found["class_uid"], found["type_uid"], found["launch_type_id"]) == (1007, 100701, 3)
    assert found["process"] == {
        "uid": f"{'e' * 32}:7",
        "namespace_pid": 7,
        "cmd_line": "curl x",
        "working_directory": "/w",
        "sandbox": "5" * 32,
        "file": {"name": "curl", "path": "/usr/bin/curl", "type_id": 8},
        "parent_process": {"uid": f"{'e' * 32}:1", "namespace_pid": 1},
    }
    assert (found["action_id"], found["disposition_id"], found["status_id"]) == (2, 2, 2)
    assert found["policy"] == {"uid": "r1", "name": "rego", "type": "Rego", "is_applied": True}
    assert found["actor"] == {"user": {"uid": "uid:7"}}
    assert found["device"]["container"] == {"uid": "5" * 32}
    assert (found["metadata"]["tenant_uid"], found["metadata"]["correlation_uid"]) == ("t", "e" * 32)
    assert found["unmapped"]["reason_codes"] == ["no_net"]
    assert found["unmapped"]["verdict"] == "deny"


def test_a_program_always_has_a_name() -> None:
    assert of(events.ProcessExecDecided, image="/dev/fd/")["process"]["file"]["name"] == "/dev/fd/"


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"end_reason": "exited", "exit_code": 0}, 1),
        ({"end_reason": "exited", "exit_code": 3}, 2),
        ({"end_reason": "wall"}, 2),
    ],
)
def test_an_end_is_a_termination_with_its_status(values: dict[str, object], status: int) -> None:
    found = of(events.ExecutionEnded, wall_seconds=1.5, **values)
    assert (found["type_uid"], found["duration"], found["status_id"]) == (100702, 1500, status)
    assert found.get("exit_code") == values.get("exit_code")
    assert found["status_code"] == values["end_reason"]


def test_a_violation_is_a_finding() -> None:
    found = of(events.SandboxViolated, layer="seccomp", code="killed", detail="x")
    assert (found["type_uid"], found["status"], found["is_alert"]) == (200401, "New", True)
    assert found["finding_info"]["analytic"]["name"] == "seccomp"
    assert found["evidences"] == [{"process": {"uid": "e" * 32}}]
    assert found["resources"] == [{"uid": "5" * 32, "type": "sandbox"}]
    assert (found["status_code"], found["status_detail"]) == ("killed", "x")


def test_a_request_is_a_call_of_the_api() -> None:
    found = of(events.ExecutionRequested, caller_method="Execute", agent_session_id="s", tool_name="bash")
    assert (found["type_uid"], found["api"]["operation"]) == (600301, "Execute")
    assert found["api"]["request"] == {"uid": "e" * 32}
    assert found["trace"] == {"uid": "a" * 32}
    assert found["actor"]["session"] == {"uid": "s"}
    assert found["unmapped"]["tool_name"] == "bash"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("verdict", ["allow", "warn", "deny", "escalate"])
def test_a_decision_is_of_the_class_of_what_was_asked(action: str, verdict: str) -> None:
    found = of(events.PolicyDecided, action=action, verdict=verdict)
    assert found["class_uid"] == ACTIONS[action].of.uid
    assert (found["action"] == "Allowed") is (verdict in ("allow", "warn"))


def test_what_the_daemon_did_itself_has_it_as_its_actor() -> None:
    found = told(linked(made(events.DaemonStarted)))
    assert found["actor"] == {"process": {"name": "sandboxd", "uid": "boot"}}
    assert found["app"]["name"] == "sandboxd"
    assert "container" not in found["device"]
    assert "prev_event" not in found["attestation_list"][0]


def test_a_record_of_no_known_noun_is_a_base_event() -> None:
    record = Record(1, "b", "n\ud800", "2001-09-09T01:46:40.000000001Z", "weather.changed", "Odd", (), (("x", 2**70),))
    found = told(record)
    assert (found["class_uid"], found["type_uid"], found["severity"]) == (0, 99, "Unknown")
    assert found["unmapped"]["x"] == str(2**70)
