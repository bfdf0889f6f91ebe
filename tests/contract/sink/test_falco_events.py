"""Every kind of event, as falcosidekick takes it: exact Falco JSON, accepted by the port of its checks, and not cut."""

import dataclasses
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.audit.line import ORIGIN, body, check, decode, encode, follow
from sandboxd.event import Event
from sandboxd.sink.falco_event import MOST_BYTES, derived_names, falco_event, falco_line, field_name
from tests import falcosidekick_port
from tests.fakes.events import made
from tests.hostile import KINDS, hostile

KEYS = {"time", "rule", "priority", "source", "hostname", "output", "tags", "output_fields"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)
OUTPUT = re.compile(r"\d\d:\d\d:\d\d\.\d{9}: (\w+) ([a-z_.]+)( \([A-Za-z0-9_.= ]+\))?", re.ASCII)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.rule)


def journal_line(event: Event, time_ns: int = 1_767_225_600_000_000_001) -> bytes:
    return encode(body(event), ORIGIN, "b0" * 16, "node-1", time_ns)[:-1]


def assert_exact(line: bytes) -> dict[str, object]:
    """The table of Falco's format: keys, types and no more."""
    event = json.loads(line)
    assert set(event) == KEYS
    assert TIME.fullmatch(event["time"])
    assert event["rule"] and event["priority"] in falcosidekick_port.PRIORITIES
    assert event["source"] == "sandboxd" and event["hostname"] == "node-1"
    told = OUTPUT.fullmatch(event["output"])
    assert told is not None and told[1] == event["priority"] and told[2] == event["rule"]
    assert all(isinstance(tag, str) for tag in event["tags"])
    fields = event["output_fields"]
    assert isinstance(fields["evt.time"], int)
    for name, value in fields.items():
        assert re.fullmatch(r"[a-z0-9]+(\.[a-z0-9_]+)+", name), name
        assert value is None or isinstance(value, str | int | float | bool), name
        assert not isinstance(value, str) or len(value.encode()) <= MOST_BYTES, name
    return dict(event)


def assert_accepted(line: bytes) -> None:
    sent = assert_exact(line)
    payload = falcosidekick_port.accept(line)
    passed_on = json.loads(payload.marshalled())
    assert passed_on["output_fields"] == sent["output_fields"]  # nothing cut, no text read otherwise
    assert {name: passed_on[name] for name in ("rule", "priority", "source", "hostname", "output")} == {
        name: sent[name] for name in ("rule", "priority", "source", "hostname", "output")
    }


@each_kind
def test_each_kind_of_event_is_accepted_whether_empty_or_hostile(kind: type[Event]) -> None:
    assert_accepted(falco_line(decode(journal_line(made(kind)))))
    for seed in range(10):
        assert_accepted(falco_line(decode(journal_line(hostile(random.Random(seed), kind)))))


@each_kind
def test_no_two_fields_of_an_event_have_one_name(kind: type[Event]) -> None:
    names = Counter([field_name(kind.rule, field.name) for field in dataclasses.fields(kind)])
    names.update(derived_names(kind.rule))
    assert [name for name, count in names.items() if count > 1] == []


def test_an_id_has_one_name_in_every_kind_of_event() -> None:
    for field in dataclasses.fields(Event):
        assert len({field_name(kind.rule, field.name) for kind in KINDS}) == 1, field.name


@each_kind
def test_each_field_is_there_under_its_name(kind: type[Event]) -> None:
    ids = {field.name: "a1" for field in dataclasses.fields(Event)}
    fields = falco_event(decode(journal_line(made(kind, **ids))))["output_fields"]
    assert isinstance(fields, dict)
    named = {field_name(kind.rule, field.name) for field in dataclasses.fields(kind)}
    assert set(fields) == named | set(derived_names(kind.rule))


@settings(max_examples=300)
@given(seed=st.integers(0, 2**64))
def test_hostile_events_are_lines_that_round_trip_and_are_accepted(seed: int) -> None:
    chance = random.Random(seed)
    assert_survives(hostile(chance, chance.choice(KINDS)))


def assert_survives(event: Event) -> None:
    line = journal_line(event)
    assert check(ORIGIN, line) == follow(ORIGIN, line)
    record = decode(line)
    content: dict[str, object] = {
        "rule": record.rule,
        "priority": record.priority,
        "ids": dict(record.ids),
        "fields": dict(record.fields),
    }
    assert encode(content, ORIGIN, record.boot, record.node, 1_767_225_600_000_000_001)[:-1] == line
    assert_accepted(falco_line(record))
