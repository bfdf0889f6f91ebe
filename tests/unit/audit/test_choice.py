import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.audit.choice import Choice, Head, head
from sandboxd.audit.line import ORIGIN, body, decode, encode
from sandboxd.settings.sinks.base import Filter
from sandboxd.sink.base import Record
from tests.fakes.events import violated

FORGED = '","priority":"Debug","rule":"a.b","seq":9,"time":"2001-09-09T01:46:40.000000001Z","v":1}'


def record(rule: str = "policy.decided", priority: str = "Notice", tenant: str = "acme") -> Record:
    return Record(1, "b", "n", "", rule, priority, (("tenant", tenant),), ())


@given(st.text())
def test_the_end_of_a_line_tells_what_the_whole_line_does(text: str) -> None:
    for content in (text, text + FORGED, FORGED + text):
        line = encode(body(violated(content, tenant=content)), ORIGIN, "boot", content, 10**18)[:-1]
        whole = decode(line)
        assert head(line) == Head(whole.seq, whole.time, whole.rule, whole.priority)


def test_a_line_that_ends_otherwise_has_to_be_read_whole() -> None:
    line = encode(body(violated()), ORIGIN, "boot", "node", 10**18)[:-1]
    assert head(line) is not None
    for other in (b"", line[:-1], line + b" ", line.replace(b'"v":1', b'"v":2'), line.replace(b'"seq":1', b'"seq":01')):
        assert head(other) is None
    assert json.loads(line)["seq"] == 1


@pytest.mark.parametrize(
    ("wanted", "rule", "priority", "taken"),
    [
        (Filter(), "a.b", "Debug", True),
        (Filter(rules=("policy.*",)), "policy.decided", "Debug", True),
        (Filter(rules=("policy.*",)), "policyx.decided", "Debug", False),
        (Filter(rules=("policy.decided",)), "policy.reloaded", "Debug", False),
        (Filter(rules=("policy.decided", "syscall.*")), "syscall.denied", "Debug", True),
        (Filter(priority="Warning"), "a.b", "Warning", True),
        (Filter(priority="Warning"), "a.b", "Emergency", True),
        (Filter(priority="Warning"), "a.b", "Notice", False),
        (Filter(priority="Warning"), "a.b", "Fatal", True),
        (Filter(rules=("policy.*",), priority="Warning"), "b.c", "Error", False),
    ],
)
def test_a_filter_goes_by_rule_and_priority(wanted: Filter, rule: str, priority: str, taken: bool) -> None:
    choice = Choice(wanted)
    assert choice.may_take(rule, priority) is taken
    assert choice.takes(record(rule, priority)) is taken


def test_a_filter_goes_by_tenant_and_the_empty_one_is_the_node() -> None:
    choice = Choice(Filter(tenants=("acme", "")))
    assert [choice.takes(record(tenant=tenant)) for tenant in ("acme", "", "other")] == [True, True, False]
    assert not Choice(Filter(tenants=("acme",))).takes(Record(1, "b", "n", "", "a.b", "Notice", (), ()))
