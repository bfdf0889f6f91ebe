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
from dataclasses import dataclass
from typing import get_args

from sandboxd.spawner.form import Form, Misfit, form_of

MAX_PACKET = 48 * 1024
MAX_MESSAGE = 16 * 1024 * 1024  # the most arguments that execve(2) takes, each byte escaped
MAX_FDS = 32
_LARGE = "@memfd"
_MFD_NOEXEC_SEAL = 0x0008  # Linux 6.3


class ProtocolError(Exception):
    """The peer broke the protocol; nothing further from it is believed."""


# --- spawner → daemon


@dataclass(frozen=True, slots=True)
class Hello:
    """First message to each daemon; `living` Adopt messages follow.

    `facts` is the probe's result as (guarantee, state, layers, reason) rows, layers joined by commas.
    """

    mode: str
    kernel: str
    facts: tuple[tuple[str, str, str, str], ...]
    templates: tuple[tuple[str, str], ...]  # name, digest
    living: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """After Hello: a sandbox that lived under an earlier daemon; descriptors as in Launched."""

    sandbox_id: str
    host_uid: int
    fd_names: tuple[str, ...]
    at_birth: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Launched:
    """Answer to Launch. Descriptors in the order of `fd_names`: pidfd, init, then counters, then `listen:PORT`s."""

    request_id: int
    sandbox_id: str
    host_uid: int
    fd_names: tuple[str, ...]
    at_birth: tuple[tuple[str, float], ...]  # what the counters stood at before anything of the tenant's was in it


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer to any request: `reason` is template_unknown, above_ceiling, overloaded, launch_failed, reload_failed."""

    request_id: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SandboxEnded:
    """Init of a sandbox died (killed or not) and all of it is gone; `usage` holds its last counters since birth."""

    sandbox_id: str
    wait_status: int
    usage: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Templates were compiled again. `request_id` 0: the service manager asked (SIGHUP), the daemon reloads too."""

    request_id: int
    templates: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """The node goes down: refuse new work, end, exit."""

    grace_seconds: float


# --- daemon → spawner


@dataclass(frozen=True, slots=True)
class Launch:
    request_id: int
    sandbox_id: str
    template: str
    network: str
    memory_bytes: int
    pids: int
    cpus: float
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int
    io_read_bytes_per_second: int
    io_write_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a sandbox whole; answered by SandboxEnded. Unknown ids are ignored (it has ended already)."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Reload:
    request_id: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The daemon serves; the spawner tells the service manager."""

    status: str


# --- spawner → init


@dataclass(frozen=True, slots=True)
class Assign:
    """Turns a blank init into that of a sandbox; descriptor: its end of the daemon's control socket.

    `memory_bytes`, `pids`: what no cgroup holds here, so each execution must have it as an rlimit, or less. Else 0.
    """

    template: str
    memory_bytes: int
    pids: int
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int


# --- daemon → init


@dataclass(frozen=True, slots=True)
class Execute:
    """Start a program; descriptors: stdin, stdout, stderr, each a pipe without a name, and init takes nothing else.

    Numbers are rlimits; `slot` picks the uid in the range.
    """

    execution_id: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    slot: int
    open_files: int
    file_size_bytes: int
    cpu_seconds: float
    memory_bytes: int  # 0: the cgroup does it; else RLIMIT_DATA and RLIMIT_AS
    pids: int  # 0: the cgroup does it; else RLIMIT_NPROC


@dataclass(frozen=True, slots=True)
class Put:
    """Write a file into the workspace as the user of `slot`; descriptor: the content."""

    request_id: int
    path: str
    mode: int
    slot: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Open the regular files that match; answered by FileOpened for each and one Answer."""

    request_id: int
    patterns: tuple[str, ...]
    max_files: int
    max_bytes: int
    slot: int


@dataclass(frozen=True, slots=True)
class Signal:
    execution_id: str
    signum: int


@dataclass(frozen=True, slots=True)
class Answered:
    """To Asked: `errno` 0 lets the call be made."""

    request_id: int
    errno: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Kill every process but init itself; answered by Answer once none is left."""

    request_id: int


# --- init → daemon


@dataclass(frozen=True, slots=True)
class Started:
    execution_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class ExecFailed:
    """The program never ran: the failed step (a system call's name), its errno, and what it concerned."""

    execution_id: str
    step: str
    errno: int
    detail: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The main process ended. Numbers are its own and its waited-for children's, from wait4(2)."""

    execution_id: str
    wait_status: int
    cpu_user_seconds: float
    cpu_system_seconds: float
    max_rss_bytes: int
    limits_reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileOpened:
    """Descriptor: the file, read-only."""

    request_id: int
    path: str
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Ends a request to init. `errno` 0 is success; `skipped` pairs a path with why it did not come.

    The first, with `request_id` 0, tells that the sandbox is complete (or why it is not, and then init is gone).
    """

    request_id: int
    errno: int
    message: str
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A process is about to become another program, and waits for Answered."""

    request_id: int
    execution_id: str
    pid: int
    parent_pid: int
    image: str
    argv: tuple[str, ...]
    cwd: str


@dataclass(frozen=True, slots=True)
class CallRefused:
    """`count` equal calls failed with that errno, the last of them by this process, and nobody was asked."""

    execution_id: str
    number: int
    pid: int
    errno: int
    reason: str  # profile: it lists the call; else why an exec could not be asked about
    count: int


Message = (
    Hello | Adopt | Launched | Refused | SandboxEnded | Reloaded | Drain
    | Launch | Kill | Reload | Ready | Assign
    | Execute | Put | Collect | Signal | Answered | Stop
    | Started | ExecFailed | Exited | FileOpened | Answer | Asked | CallRefused
)  # fmt: skip

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
