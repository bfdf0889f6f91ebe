"""The scan agrees with protobuf on every correct message, and refuses what protobuf would swallow."""

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.errors import InvalidRequest
from sandboxd.rpc.scan import MAX_FIELDS, scan
from sandboxd.rpc.v1 import enforcement_pb2, sandbox_pb2

EXECUTE = sandbox_pb2.ExecuteRequest.DESCRIPTOR
WHOLE = sandbox_pb2.ExecuteRequest(
    argv=sandbox_pb2.ArgvProgram(argv=["sh", "", "x" * 300]),
    profile="p",
    stdin=b"\0" * 300,
    env={"A": "b", "": ""},
    files=[sandbox_pb2.InputFile(path="a", content=b"b", mode=0o755), sandbox_pb2.InputFile()],
    limits=enforcement_pb2.Limits(wall_seconds=1.5, memory_bytes=1 << 40),
    labels={"k": "v"},
    isolation=enforcement_pb2.ISOLATION_KATA,
    agent=sandbox_pb2.Agent(name="a"),
    detach=True,
)


def refusal(data: bytes, descriptor: Descriptor = EXECUTE) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        scan(data, descriptor)
    return caught.value


def field(number: int, wire_type: int, payload: bytes) -> bytes:
    return varint(number << 3 | wire_type) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sized(payload: bytes) -> bytes:
    return varint(len(payload)) + payload


def test_whole_request_passes() -> None:
    scan(WHOLE.SerializeToString(), EXECUTE)


def test_negative_number_in_ten_bytes_passes() -> None:
    request = sandbox_pb2.KillExecutionRequest(execution_id="x", signal=-1)
    scan(request.SerializeToString(), request.DESCRIPTOR)


def test_field_unknown_to_the_message_is_refused() -> None:
    assert refusal(field(500, 0, b"\1")).reason == "unknown_field"


@pytest.mark.parametrize("number", [1, 5, 7, 9, 13])
def test_field_unknown_to_an_inner_message_is_refused(number: int) -> None:
    assert refusal(field(number, 2, sized(field(500, 0, b"\1")))).reason == "unknown_field"


def test_protobuf_alone_would_lose_a_map_entry_with_an_unknown_field() -> None:
    """The control of the test above: why the wire form is read at all."""
    data = field(5, 2, sized(field(1, 2, b"\1A") + field(2, 2, b"\1b") + field(500, 0, b"\1")))
    assert dict(sandbox_pb2.ExecuteRequest.FromString(data).env) == {}
    assert refusal(data).reason == "unknown_field"


@pytest.mark.parametrize(
    "data",
    [
        field(3, 0, b"\1"),  # profile is text
        field(12, 2, sized(b"x")),  # isolation is a number
        field(9, 2, sized(field(1, 0, b"\1"))),  # limits.wall_seconds is a double
        field(3, 3, field(3, 4, b"")),  # a group
        field(3, 7, b""),  # no such wire type
        field(0, 2, sized(b"")),  # no such number
    ],
)
def test_wrong_wire_type_is_refused(data: bytes) -> None:
    assert refusal(data).reason in {"malformed_message", "unknown_field"}


def test_every_truncation_of_a_request_is_refused_or_ends_between_fields() -> None:
    data = WHOLE.SerializeToString()
    for length in range(len(data)):
        try:
            sandbox_pb2.ExecuteRequest.FromString(data[:length])
        except DecodeError:
            assert refusal(data[:length]).reason == "malformed_message"
        else:
            scan(data[:length], EXECUTE)


def test_endless_number_is_refused() -> None:
    assert refusal(b"\xff" * 32).reason == "malformed_message"
    assert refusal(field(12, 0, b"\x80" * 11)).reason == "malformed_message"


def test_size_beyond_the_end_is_refused() -> None:
    assert refusal(field(3, 2, varint(1 << 60) + b"x")).reason == "malformed_message"


@pytest.mark.parametrize(
    "data",
    [
        field(5, 2, sized(field(1, 2, b"\1a") + field(2, 2, b"\1b"))) * 1_000_000,
        field(1, 2, sized(field(1, 2, b"\0") * 4_000_000)),
        field(7, 2, b"\0") * 4_000_000,
    ],
    ids=["map-entries", "arguments", "files"],
)
def test_millions_of_elements_are_refused_without_reading_them(data: bytes) -> None:
    assert refusal(data).reason == "too_many_fields"


def test_as_many_fields_as_allowed_pass() -> None:
    scan(field(8, 2, b"\0") * MAX_FIELDS, EXECUTE)
    assert refusal(field(8, 2, b"\0") * (MAX_FIELDS + 1)).reason == "too_many_fields"


@given(st.binary(max_size=64))
def test_what_passes_is_what_protobuf_reads_without_remainder(data: bytes) -> None:
    try:
        scan(data, EXECUTE)
    except InvalidRequest:
        return
    try:
        message = sandbox_pb2.ExecuteRequest.FromString(data)
    except DecodeError:
        return  # text that is not UTF-8
    assert len(UnknownFieldSet(message)) == 0


@given(
    st.builds(
        sandbox_pb2.ExecuteRequest,
        argv=st.builds(sandbox_pb2.ArgvProgram, argv=st.lists(st.text())),
        stdin=st.binary(),
        env=st.dictionaries(st.text(), st.text()),
        files=st.lists(st.builds(sandbox_pb2.InputFile, path=st.text(), content=st.binary(), mode=st.integers(0, 511))),
        limits=st.builds(enforcement_pb2.Limits, wall_seconds=st.floats(), pids=st.integers(0, 2**64 - 1)),
    )
)
def test_what_protobuf_writes_passes(message: sandbox_pb2.ExecuteRequest) -> None:
    scan(message.SerializeToString(), EXECUTE)
