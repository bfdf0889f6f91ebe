"""What one side says the other hears, and nothing else is heard at all."""

import os
import socket
import typing
from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.spawner import wire

KILL = wire.Kill("a" * 32)
MESSAGES = typing.get_args(wire.Message)


def _sample(hint: typing.Any) -> object:
    if typing.get_origin(hint) is tuple:
        arguments = typing.get_args(hint)
        items = (arguments[0],) * 2 if arguments[-1] is Ellipsis else arguments
        return tuple(_sample(item) for item in items)
    return {str: "ü\n\u2028\0\ud800", int: -(2**62), float: 0.1}[hint]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_arrives_as_it_was_sent(kind: type[wire.Message], pair: Pair) -> None:
    hints = typing.get_type_hints(kind)
    message = kind(**{field.name: _sample(hints[field.name]) for field in fields(kind)})  # type: ignore[arg-type]
    wire.send(pair[0], message)
    assert wire.receive(pair[1]) == (message, [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"1",
        b'"Kill"',
        b"{}",
        b'{"type":null}',
        b'{"type":["Kill"]}',
        b'{"type":{}}',
        b'{"type":"Kill"}',
        b'{"type":"Kill","sandbox_id":null}',
        b'{"type":"Kill","sandbox_id":"a","more":1}',
        b'{"type":"Kill","sandbox_id":"a"}{}',
        b'{"type":"Message"}',
        b'{"type":"__class__"}',
        b'{"type":"Reload","request_id":9223372036854775808}',
        b'{"type":"Drain","grace_seconds":NaN}',
        b'{"type":"Drain","grace_seconds":Infinity}',
        b'{"type":"Drain","grace_seconds":1e999}',
        b'{"type":"Drain","grace_seconds":' + b"9" * 400 + b"}",
        b'{"type":"Drain","grace_seconds":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"type":"Reloaded","request_id":1,"templates":' + b"[" * 40_000,
        wire.encode(KILL).decode().encode("utf-16"),
        wire.encode(KILL).decode().encode("utf-16-le"),
        wire.encode(KILL).decode().encode("utf-32-be"),
        b"\xef\xbb\xbf" + wire.encode(KILL),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_encode_could_not_have_made_is_refused(data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_are_worse_than_a_protocol_error(data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.decode(data)


def test_refusal_names_the_message_and_the_field() -> None:
    with pytest.raises(wire.ProtocolError, match=r"^Reloaded\.templates: expected 2 items$"):
        wire.decode(b'{"type":"Reloaded","request_id":1,"templates":[["a"]]}')


def test_number_that_json_has_not_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.encode(wire.Drain(float("inf")))


def test_descriptors_arrive_close_on_exec_and_in_order(pair: Pair) -> None:
    files = [os.memfd_create(str(number)) for number in range(5)]
    wire.send(pair[0], KILL, files)
    received = wire.receive(pair[1])
    assert received is not None
    assert [os.fstat(fd).st_ino for fd in received[1]] == [os.fstat(fd).st_ino for fd in files]
    assert not any(os.get_inheritable(fd) for fd in received[1])
    wire.close_all([*files, *received[1]])


def test_end_of_the_connection_is_none(pair: Pair) -> None:
    pair[0].close()
    assert wire.receive(pair[1]) is None


def test_message_too_large_for_a_packet_arrives_with_its_descriptors(pair: Pair) -> None:
    message = wire.Ready("x" * 1_000_000)
    with open(os.devnull, "rb") as file:
        wire.send(pair[0], message, (file.fileno(),))
        received = wire.receive(pair[1])
        assert received is not None
        assert received[0] == message
        (fd,) = received[1]
        assert os.path.samestat(os.fstat(fd), os.fstat(file.fileno()))
        os.close(fd)


def test_message_over_the_maximum_is_not_sent(pair: Pair) -> None:
    with pytest.raises(wire.ProtocolError, match="is over"):
        wire.send(pair[0], wire.Ready("x" * wire.MAX_MESSAGE))
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])


def test_largest_arguments_of_execve_fit_whatever_they_are(pair: Pair) -> None:
    argv = tuple("\x01" * (1 << 17) for _ in range(12))
    message = wire.Execute("e", argv, (), "/", 0, 1, 1, 1.0, 0, 0)
    wire.send(pair[0], message)
    assert wire.receive(pair[1]) == (message, [])


def _held() -> int:
    return len(os.listdir("/proc/self/fd"))


def _memfd(content: bytes) -> int:
    fd = os.memfd_create("large")
    os.write(fd, content)
    return fd


@pytest.mark.parametrize(
    "header",
    [
        b'{"type": "@memfd"',
        b'{"type": "@memfd"}',
        b'{"type": "@memfd", "size": null}',
        b'{"type": "@memfd", "size": -1}',
        b'{"type": "@memfd", "size": 10}',
        b'{"type": "@memfd", "size": 1000000000000}',
        b'{"type": "@memfd", "size": 60000}',
        b'{"type": "@memfd", "size": [[[[',
        b'{"type": "@memfd", "size": ' + b"[" * 30_000,
    ],
    ids=lambda header: repr(header[:50]),
)
def test_ill_formed_large_message_is_refused_and_its_descriptors_closed(header: bytes, pair: Pair) -> None:
    """Also one that is shorter than it says."""
    before = _held()
    fd = _memfd(wire.encode(KILL))
    socket.send_fds(pair[0], [header], [fd, fd, fd])
    os.close(fd)
    with pytest.raises(wire.ProtocolError):
        wire.receive(pair[1])
    assert _held() == before


def test_large_message_without_a_descriptor_is_refused(pair: Pair) -> None:
    pair[0].send(b'{"type": "@memfd", "size": 60000}')
    with pytest.raises(wire.ProtocolError):
        wire.receive(pair[1])


def test_large_message_is_only_read_from_memory(pair: Pair, tmp_path: object) -> None:
    """A pipe would block the reader, and so would a file of a file system in user space."""
    read, write = os.pipe()
    directory = os.open("/", os.O_RDONLY)
    for fd in (read, directory):
        socket.send_fds(pair[0], [b'{"type": "@memfd", "size": 60000}'], [fd])
        with pytest.raises(wire.ProtocolError, match="no memory file"):
            wire.receive(pair[1])
    wire.close_all([read, write, directory])


def test_cut_packet_is_refused(pair: Pair) -> None:
    pair[0].send(b" " * (wire.MAX_PACKET + 100))
    with pytest.raises(wire.ProtocolError, match="cut"):
        wire.receive(pair[1])


def test_too_many_descriptors_are_refused_and_none_is_kept(pair: Pair) -> None:
    before = _held()
    socket.send_fds(pair[0], [wire.encode(KILL)], [0] * (wire.MAX_FDS + 1))
    with pytest.raises(wire.ProtocolError, match="cut"):
        wire.receive(pair[1])
    assert _held() == before


def test_descriptors_of_a_refused_message_are_closed(pair: Pair) -> None:
    before = _held()
    socket.send_fds(pair[0], [b"garbage"], [0, 1, 2])
    with pytest.raises(wire.ProtocolError):
        wire.receive(pair[1])
    assert _held() == before


def test_full_socket_takes_nothing(pair: Pair) -> None:
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            wire.send(pair[0], wire.Ready("x" * 10_000))
    before = _held()
    with pytest.raises(BlockingIOError):
        wire.send(pair[0], wire.Ready("x" * 1_000_000))
    assert _held() == before
