"""The closed set of messages between daemon, spawner and init: one JSON object per SOCK_SEQPACKET packet, plus fds.

Each side decodes strictly: an unknown type, a missing or unknown field or a wrong type is a `ProtocolError`, and the
connection ends. A message too large for a packet travels as a memfd. Standard library only.
"""

import array
import errno
import fcntl
import json
import os
import socket
from collections.abc import Sequence
from typing import get_args

from sandboxd.spawner.form import Form, Misfit, form_of
from sandboxd.spawner.messages import (
    Adopt as Adopt,
    Answer as Answer,
    Answered as Answered,
    Asked as Asked,
    Assign as Assign,
    CallRefused as CallRefused,
    Collect as Collect,
    Drain as Drain,
    Examine as Examine,
    Examined as Examined,
    ExecFailed as ExecFailed,
    Execute as Execute,
    Exited as Exited,
    FileOpened as FileOpened,
    Freeze as Freeze,
    Frozen as Frozen,
    Halt as Halt,
    Hello as Hello,
    Kill as Kill,
    Launch as Launch,
    Launched as Launched,
    Message as Message,
    Offered as Offered,
    Put as Put,
    Ready as Ready,
    Refused as Refused,
    Reload as Reload,
    Reloaded as Reloaded,
    Resume as Resume,
    Returned as Returned,
    SandboxEnded as SandboxEnded,
    Signal as Signal,
    Started as Started,
    Stop as Stop,
    Thaw as Thaw,
    Withdrawn as Withdrawn,
)

MAX_PACKET = 48 * 1024
MAX_MESSAGE = 16 * 1024 * 1024  # the most arguments that execve(2) takes, each byte escaped
MAX_FDS = 32
_LARGE = "@memfd"
_MFD_NOEXEC_SEAL = 0x0008  # Linux 6.3


class ProtocolError(Exception):
    """The peer broke the protocol; nothing further from it is believed."""


_FORMS: dict[str, Form[Message]] = {cls.__name__: form_of(cls) for cls in get_args(Message)}


def encode(message: Message) -> bytes:
    form = _FORMS[type(message).__name__]
    return _ENCODER.encode({"type": form.name, **form.write(message)}).encode()


def decode(data: bytes) -> Message:
    """`ProtocolError` for anything that `encode` could not have made."""
    try:
        # As UTF-8 and nothing else: given bytes, json would guess UTF-16 or UTF-32 and import a codec for it.
        body = _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError("not an object")
    name = body.pop("type", None)
    form = _FORMS.get(name) if isinstance(name, str) else None
    if form is None:
        raise ProtocolError(f"unknown message {name!r}")
    try:
        return form.read(body)
    except Misfit as error:
        raise ProtocolError(str(error)) from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """One packet. OSError as of sendmsg(2): on a non-blocking socket BlockingIOError means nothing was sent."""
    send_encoded(sock, encode(message), fds)


def send_encoded(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """What `encode` made or `receive_encoded` brought, as `send` does."""
    if len(data) <= MAX_PACKET:
        _send_packet(sock, data, fds)
        return
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"message of {len(data)} bytes is over {MAX_MESSAGE}")
    memfd = _memfd()
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memfd, view) :]
        _send_packet(sock, json.dumps({"type": _LARGE, "size": len(data)}).encode(), (memfd, *fds))
    finally:
        os.close(memfd)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (close-on-exec, now yours); None when the peer closed."""
    received = receive_encoded(sock)
    return (received[0], received[2]) if received is not None else None


def receive_encoded(sock: socket.socket) -> tuple[Message, bytes, list[int]] | None:
    """`receive`, with the message as it came too: whoever has looked at it may hand it on with `send_encoded`."""
    fds = array.array("i")
    data, ancillary, flags, _ = sock.recvmsg(
        MAX_PACKET + 1, socket.CMSG_SPACE(MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    received = list(fds)
    if not data:
        close_all(received)
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ProtocolError("packet or descriptors were cut")
        if data.startswith(b'{"type": "@memfd"'):
            data = _read_large(data, received)
        return decode(data), data, received
    except BaseException:
        close_all(received)
        raise


def receive_bare(sock: socket.socket) -> Message | None:
    """The next message, from a peer who may hand nothing over; None when the peer closed.

    The kernel drops descriptors that there is no room for: closing one of a hostile file system (FUSE) could block.
    """
    data, _, flags, _ = sock.recvmsg(MAX_PACKET + 1)
    if not data:
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ProtocolError("the packet was cut, or came with descriptors")
    return decode(data)


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _memfd() -> int:
    """Sealed against execution: in a sandbox's pid namespace the kernel makes no other (vm.memfd_noexec)."""
    try:
        return os.memfd_create("sandboxd-message", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("sandboxd-message", os.MFD_CLOEXEC)


def _send_packet(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary)


def _read_large(header: bytes, fds: list[int]) -> bytes:
    try:
        size = json.loads(header.decode()).get("size")
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(size, int) or not MAX_PACKET < size <= MAX_MESSAGE or not fds:
        raise ProtocolError("bad large message")
    memfd = fds.pop(0)
    try:
        fcntl.fcntl(memfd, fcntl.F_GET_SEALS)  # only memory files have them; reading anything else could block
        data = bytearray()
        while len(data) < size and (piece := os.pread(memfd, size - len(data), len(data))):
            data += piece
    except OSError as error:
        raise ProtocolError(f"its descriptor is no memory file: {error}") from error
    finally:
        os.close(memfd)
    if len(data) < size:
        raise ProtocolError("large message is short")
    return bytes(data)
