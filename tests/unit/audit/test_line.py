import hashlib
import json
import sys

import pytest

from sandboxd.audit.line import ORIGIN, LineDamaged, Link, before, body, check, decode, encode, follow, timestamp
from sandboxd.event import EXCERPT_CHARS, ConfigReloaded, Event, ExecutionEnded, ExecutionRequested, JournalRepaired
from tests.fakes.events import made, violated

HOSTILE = [
    '\n{"rule":"fake","priority":"Emergency"}',
    "\r\n\r\n",
    "\x1b[2J\x1b]0;pwned\x07",
    "\0",
    "\u2028\u2029\x85\x0b\x0c",
    "\ud800",
    '"quoted" \\ backslash',
    "é✓😀",
    "\x7f",
]


def line(event: Event) -> bytes:
    return encode(body(event), ORIGIN, "boot", "node", 0)


@pytest.mark.parametrize("text", HOSTILE)
def test_tenant_text_is_one_well_formed_line_and_nothing_is_lost(text: str) -> None:
    written = line(violated(text, tenant=text))
    assert written.count(b"\n") == 1
    assert written.endswith(b"}\n")
    assert all(0x20 <= byte < 0x7F for byte in written[:-1].replace(b"\x7f", b""))
    assert len(written.decode("ascii").splitlines()) == 1
    record = decode(written[:-1])
    assert (record.rule, record.priority) == ("sandbox.violated", "Warning")
    assert dict(record.fields)["detail"] == text
    assert dict(record.ids)["tenant"] == text


def test_a_megabyte_is_cut_and_its_digest_stands_beside_it() -> None:
    text = "x" * 1_000_000
    fields = dict(decode(line(violated(text))[:-1]).fields)
    assert fields["detail"] == "x" * EXCERPT_CHARS
    assert fields["detail_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert len(line(violated(text))) < 4096


def requested(labels: tuple[tuple[str, str], ...]) -> ExecutionRequested:
    ids = ("t", "s", "e", "b", "r", "i")
    return ExecutionRequested(*ids, "default", "cmd", "d", "", "h", "", "", "", "", labels, (), "Execute")


def test_lists_are_bounded_in_length_and_in_each_item() -> None:
    fields = dict(decode(line(requested((("k", "v" * 100_000),)))[:-1]).fields)
    match fields["labels"]:
        case (("k", str(value)),):
            assert len(value) == EXCERPT_CHARS
            assert value.endswith(hashlib.sha256(b"v" * 100_000).hexdigest())
        case other:
            pytest.fail(f"{other!r} is not one pair")
    fields = dict(decode(line(requested((("k", "v"),) * 10_000))[:-1]).fields)
    assert len(fields["labels"]) == 256  # type: ignore[arg-type]
    assert fields["labels_count"] == 10_000


def test_a_number_that_json_has_not_is_written_as_text() -> None:
    event = ExecutionEnded("t", "s", "e", "b", "r", "i", "EXITED", 0, None, float("nan"), 0.0, 0, 0, 0, (), ())
    assert dict(decode(line(event)[:-1]).fields)["wall_seconds"] == "nan"


def test_lines_are_canonical_and_chained() -> None:
    first = line(violated("a"))
    link = follow(ORIGIN, first[:-1])
    second = encode(body(violated("b")), link, "boot", "node", 1)
    assert json.loads(second)["prev"] == hashlib.sha256(first[:-1]).hexdigest()
    assert check(link, second[:-1]) == follow(link, second[:-1])
    assert before(second[:-1]) == link


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"null", b"[]", b"{}", b"{", b"\xff", b"[" * 100_000,
        line(violated("a"))[:-1].replace(b'"detail":"a"', b'"detail": "a"'),
        line(violated("a"))[:-1].replace(b'"v":1', b'"v":2'),
        line(violated("a"))[:-1].replace(b'"seq":1', b'"seq":2'),
        line(violated("a"))[:-1].replace(b'"seq":1', b'"seq":1,"seq":1'),
        line(violated("a"))[:-1].replace(b'"boot"', b'"boat"'),
        encode(body(violated("a")), Link(0, "1" * 64), "boot", "node", 0)[:-1],
    ],
)  # fmt: skip
def test_anything_else_is_damage(damaged: bytes) -> None:
    with pytest.raises(LineDamaged):
        check(ORIGIN, damaged)


def test_time_has_nine_digits_and_is_utc() -> None:
    assert timestamp(1_000_000_000_000_000_001) == "2001-09-09T01:46:40.000000001Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-13-01T00:00:00.000000000Z",
        "1970-02-30T00:00:00.000000000Z",
        "1970-01-00T00:00:00.000000000Z",
        "1970-01-01T24:00:00.000000000Z",
        "1970-01-01 00:00:00.000000000Z",
        "1970-01-01T00:00:00Z",
        "0000-01-01T00:00:00.000000000Z",
        "1970-01-01T00:00:00.00000000\u0661Z",
        "1970-01-01T00:00:00.000000000Z\n",
    ],
)
def test_a_line_without_a_time_is_damage(text: str) -> None:
    content = json.loads(line(violated("a")))
    with pytest.raises(LineDamaged, match="time"):
        decode(json.dumps({**content, "time": text}, sort_keys=True, separators=(",", ":")).encode())


def _nested(depth: int) -> bytes:
    return line(violated("a"))[:-1].replace(b'"detail":"a"', b'"detail":' + b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("depth", [20, 600])
def test_field_deeper_than_any_event_is_damage(depth: int) -> None:
    with pytest.raises(LineDamaged, match="nested deeper"):
        decode(_nested(depth))


@pytest.mark.parametrize("depth", [1, 15, 16, 17, 5000])
def test_whatever_depth_is_written_can_be_read(depth: int) -> None:
    deep: tuple[object, ...] = ("bottom",)
    for _ in range(depth):
        deep = (deep,)
    written = line(made(ConfigReloaded, profiles=deep))
    assert check(ORIGIN, written[:-1]) == follow(ORIGIN, written[:-1])
    found = str(dict(decode(written[:-1]).fields)["profiles"])
    assert found == str(deep) if depth < 16 else found.strip("(,)") == "'…'"


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_a_number_stays_one_where_readers_have_it(number: int) -> None:
    assert dict(decode(line(made(JournalRepaired, removed_bytes=number))[:-1]).fields)["removed_bytes"] == number


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**5000], ids=["above", "below", "long"])
def test_a_number_beyond_64_bits_is_written_in_hexadecimal(number: int) -> None:
    found = dict(decode(line(made(JournalRepaired, removed_bytes=number))[:-1]).fields)["removed_bytes"]
    assert isinstance(found, str) and hex(number).startswith(found[:400]) and len(found) <= EXCERPT_CHARS


def test_line_that_can_be_read_but_not_written_is_damage() -> None:
    """Where that begins depends on the caller's own stack, so every depth up to the limit is tried."""
    for depth in range(sys.getrecursionlimit() - 400, sys.getrecursionlimit() + 10):
        nested = _nested(depth)
        try:
            found = check(ORIGIN, nested)
        except LineDamaged:
            continue
        assert found == follow(ORIGIN, nested)
