import json

import pytest

from sandboxd.response.demand import Kind, Target
from sandboxd.response.falco import NoEvent, read
from sandboxd.sink.base import Record
from sandboxd.sink.falco_event import falco_line

ID, OTHER = "a" * 32, "b" * 32


def event(**fields: object) -> bytes:
    return json.dumps({"rule": "R", "priority": "Critical", "output_fields": fields}).encode()


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"container.id": ID}, Target(Kind.SANDBOX, ID)),
        ({"correlation.id": ID}, Target(Kind.EXECUTION, ID)),
        ({"container.id": ID, "correlation.id": OTHER, "sandbox.tenant": "local"}, Target(Kind.SANDBOX, ID)),
        ({"container.id": "3ad7b26ded6d", "correlation.id": OTHER}, Target(Kind.EXECUTION, OTHER)),
        ({"container.id": "", "correlation.id": None, "sandbox.tenant": "local"}, Target(Kind.TENANT, "local")),
        ({"sandbox.tenant": "local", "sandbox.subject": "uid:7"}, Target(Kind.SUBJECT, "uid:7")),
        # Somebody else's container is nobody's tenant.
        ({"container.id": "3ad7b26ded6d", "sandbox.tenant": "local"}, None),
        ({"container.id": "host", "sandbox.tenant": "local"}, None),
        ({"container.id": 7, "sandbox.tenant": "local"}, None),
        ({"container.id": ID + "\n"}, None),
        ({"container.id": ID.upper()}, None),
        ({"sandbox.tenant": ["local"]}, None),
        ({"sandbox.tenant": ""}, None),
        ({}, None),
    ],
)
def test_target_is_what_an_id_of_ours_names_and_nothing_wider(fields: dict[str, object], target: Target | None) -> None:
    assert read(event(**fields)).target == target


def test_event_that_our_own_sinks_send_is_read() -> None:
    record = Record(
        seq=1,
        boot="0" * 32,
        node="n",
        time="2026-01-01T00:00:00.000000000Z",
        rule="syscall.denied",
        priority="Notice",
        ids=(("tenant", "local"), ("subject", "uid:1"), ("execution_id", OTHER), ("sandbox_id", ID)),
        fields=(),
        prev="0" * 64,
        digest="0" * 64,
    )
    found = read(falco_line(record))
    assert (found.rule, found.target) == ("syscall.denied", Target(Kind.SANDBOX, ID))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"rule": "R"}',
        b'{"rule": "", "output_fields": {}}',
        b'{"rule": 1, "output_fields": {}}',
        b'{"rule": "R", "output_fields": []}',
        b'{"rule": "R", "output_fields": {"a": NaN}}',
        b'{"rule": "R", "rule": "S", "output_fields": {}}',
        b'{"rule": "R", "output_fields": {"container.id": "x", "container.id": "y"}}',
        b'{"rule": "R", "output_fields": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"rule": "R", "output_fields": {"a": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}}",
        b'{"rule": "R", "output_fields": {"a": ' + b"1" * 10_000 + b"}}",
        json.dumps({"rule": "R" * 257, "output_fields": {}}).encode(),
        json.dumps({"rule": "R", "output_fields": {str(n): n for n in range(513)}}).encode(),
    ],
)
def test_what_is_no_event_is_refused_with_a_constant_word(body: bytes) -> None:
    with pytest.raises(NoEvent) as refused:
        read(body)
    assert str(refused.value) in ("not_json", "not_an_event")


def test_event_cannot_choose_the_measure() -> None:
    """There is no way to say one: what is read has a rule and a target, and no more."""
    body = json.dumps({"rule": "R", "action": "kill", "measure": "kill", "output_fields": {"container.id": ID}})
    found = read(body.encode())
    assert {name: getattr(found, name) for name in found.__slots__} == {
        "rule": "R",
        "target": Target(Kind.SANDBOX, ID),
    }
