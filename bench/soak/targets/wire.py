"""Messages between daemon, spawner and init, as text and as packets: what is taken must be what `encode` makes."""

import contextlib
import json
import os
import socket
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

from bench.soak.target import Broken, Target
from sandboxd.spawner import wire

ONCE = ("form.form_of",)  # when the module is imported


def run(data: bytes) -> object:
    for receive in (_received, _received_bare):
        with contextlib.suppress(wire.ProtocolError):
            receive(data)
    message = wire.decode(data)
    if wire.decode(wire.encode(message)) != message:
        raise Broken(f"{message!r} is not what it is encoded to")
    if _sent(message) != message:
        raise Broken(f"{message!r} is not what it is sent as")
    return message


def _received(data: bytes) -> None:
    """Over a real socket, with a descriptor whose content is what follows the first line."""
    header, _, body = data.partition(b"\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memfd = os.memfd_create("fuzz")
    with ours, theirs:
        try:
            os.write(memfd, body)
            socket.send_fds(theirs, [header[: wire.MAX_PACKET] or b"0"], [memfd])
            received = wire.receive(ours)
        finally:
            os.close(memfd)
    if received is not None:
        wire.close_all(received[1])


def _received_bare(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(data[: wire.MAX_PACKET + 1] or b"0")
        wire.receive_bare(ours)


def _sent(message: wire.Message) -> object:
    """What comes out at the other end, as a packet or, if it is too large for one, as a file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        wire.send(theirs, message)
        received = wire.receive(ours)
    if received is None:
        return None
    wire.close_all(received[1])
    return received[0]


def _example(kind: object) -> object:
    if get_origin(kind) is tuple:
        arguments = get_args(kind)
        return [_example(arguments[0])] if arguments[-1] is Ellipsis else [_example(item) for item in arguments]
    return {int: 3, float: 0.5}.get(kind, "x") if isinstance(kind, type) else "x"


def _seeds() -> tuple[bytes, ...]:
    seeds = []
    for kind in get_args(wire.Message):
        hints = get_type_hints(kind)
        body = {"type": kind.__name__, **{field.name: _example(hints[field.name]) for field in fields(kind)}}
        seeds.append(json.dumps(body, separators=(",", ":")).encode())
    large = json.dumps({"type": "Kill", "sandbox_id": "x" * wire.MAX_PACKET}).encode()
    return (*seeds, large, b'{"type": "@memfd", "size": 49160}\n' + seeds[0], b"")


def target() -> Target:
    words = (b"1e999", b"NaN", b"-1", b"9" * 320, b"null", b"true", b'"\\ud800"', b'{"type": "@memfd", "size": ', b"[[")
    modules = ("sandboxd.spawner.wire", "sandboxd.spawner.form")
    return Target("wire", modules, run, (wire.ProtocolError,), _seeds(), words, max_bytes=1 << 16, outside=ONCE)
