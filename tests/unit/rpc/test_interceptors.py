"""What a hostile or broken caller sends over a real channel is refused by name, and the server goes on (A01)."""

import asyncio
import logging
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from sandboxd import errors
from sandboxd.model import Caller, ExecuteRequest
from sandboxd.rpc.interceptors import Interceptors
from sandboxd.rpc.peer import Peer, Peers
from sandboxd.rpc.v1 import sandbox_pb2
from tests.fakes.executor import ACCEPTED, Item
from tests.unit.rpc.conftest import Served, raw

RUN = "/sandboxd.v1.SandboxService/Run"
EXECUTE = "/sandboxd.v1.SandboxService/Execute"
GOOD = sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["true"])).SerializeToString()
MEBIBYTE = 1 << 20
LEAVES = [
    leaf
    for leaf in vars(errors).values()
    if isinstance(leaf, type) and issubclass(leaf, errors.SandboxdError) and leaf is not errors.SandboxdError
]


async def refusal(served: Served, data: bytes, method: str = RUN) -> tuple[grpc.StatusCode, str]:
    """The status and the reason code of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(served.channel, method, data)
    return caught.value.code(), info(caught.value).reason


def info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    found = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status_pb2.Status.FromString(value).details[0].Unpack(found)
    return found


def entry(number: int) -> bytes:
    name = b"%d" % number
    return b"\x2a" + bytes([len(name) + 4]) + b"\x0a" + bytes([len(name)]) + name + b"\x12\x00"


@pytest.mark.parametrize("method", [RUN, EXECUTE])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GOOD + b"\xa0\x1f\x01", "unknown_field"),
        (GOOD + b"\x6a\x03\xa0\x1f\x01", "unknown_field"),
        (GOOD[:-1], "malformed_message"),
        (GOOD + b"\x18\x01", "malformed_message"),
        (GOOD + b"\x1a\x02\xc3\x28", "malformed_message"),
        (GOOD + b"\x2a\x06\x0a\x01\xff\x12\x01a", "malformed_message"),
        (b"\xff" * 64, "malformed_message"),
        (GOOD + b"".join(map(entry, range(1_000_000))), "too_many_fields"),
        (GOOD + b"".join(map(entry, range(5_000))), "too_many_elements"),
        (b"", "invalid_request"),
    ],
    ids=[
        "unknown-field",
        "unknown-inner-field",
        "truncated",
        "wrong-wire-type",
        "text-not-utf8",
        "map-key-not-utf8",
        "noise",
        "million-map-entries",
        "too-many-variables",
        "empty",
    ],
)
async def test_malformed_request_is_refused_by_name(served: Served, data: bytes, reason: str, method: str) -> None:
    assert await refusal(served, data, method) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert not served.executor.requests
    await raw(served.channel, RUN, GOOD)


FLOOD = """
import sys, grpc
channel = grpc.insecure_channel("unix:" + sys.argv[1], options=(("grpc.max_send_message_length", -1),))
call = channel.unary_unary(sys.argv[2])
for mebibytes in (15, 17) * 10:
    size, prefix = mebibytes << 20, b"\\x22"
    while size > 0x7f:
        prefix, size = prefix + bytes([size & 0x7f | 0x80]), size >> 7
    try:
        call(prefix + bytes([size]) + bytes(mebibytes << 20), timeout=30)
    except grpc.RpcError as error:
        print(error.code().name)
"""


async def test_flood_of_large_requests_is_refused_and_memory_stays_flat(served: Served) -> None:
    """Half of them are larger than a message may be, half have no program; the caller is a process of its own."""
    peaks = []
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FLOOD, str(served.path), RUN, stdout=subprocess.PIPE
        )
        out, _err = await asyncio.wait_for(process.communicate(), 120)
        assert out.decode().split() == ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"] * 10
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    assert peaks[2] - peaks[0] < 32, f"peaks in MiB {peaks} while 320 came each time"
    assert not served.executor.requests


async def test_input_just_below_the_size_limit_arrives(served: Served) -> None:
    request = sandbox_pb2.ExecuteRequest(stdin=bytes(15 * MEBIBYTE), argv=sandbox_pb2.ArgvProgram(argv=["cat"]))
    await raw(served.channel, RUN, request.SerializeToString())
    assert len(served.executor.requests[0][0].stdin) == 15 * MEBIBYTE


async def test_metadata_beyond_the_limit_is_refused(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(served.channel, RUN, GOOD, ("x-big", "x" * 64 * 1024))
    assert not served.executor.requests
    await raw(served.channel, RUN, GOOD)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 128,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000000005000000000001"),
        b"PRI * HTTP/2.0",
    ],
    ids=["http1", "tls", "noise-frames", "data-without-headers", "half-a-preface"],
)
async def test_bytes_that_are_no_grpc_leave_the_server_serving(served: Served, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(served.path))
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        await raw(served.channel, RUN, GOOD)


@pytest.mark.parametrize(("promised", "executed"), [(len(GOOD), 1), (len(GOOD) + 1000, 0)], ids=["control", "early"])
async def test_frame_that_ends_early_never_reaches_the_executor(served: Served, promised: int, executed: int) -> None:
    """A length prefix that promises more than comes: gRPC's own framing, below protobuf."""
    literal = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", RUN.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    headers = b"".join(b"\x00" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in literal)
    body = b"\x00" + struct.pack(">I", promised) + GOOD
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(served.path))
        connection.setblocking(False)
        sent = frame(4, 0, 0, b"") + frame(1, 4, 1, headers) + frame(0, 1, 1, body) + frame(6, 0, 0, b"lastping")
        await loop.sock_sendall(connection, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + sent)
        answer = b""
        while frame(6, 1, 0, b"lastping") not in answer:  # all frames before it were taken then
            answer += await asyncio.wait_for(loop.sock_recv(connection, 65536), 5)
        while executed and not served.executor.requests:
            await asyncio.sleep(0.01)
        await raw(served.channel, RUN, GOOD)
    assert len(served.executor.requests) == executed + 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@pytest.mark.parametrize("leaf", LEAVES)
async def test_error_of_the_line_reaches_the_caller_as_its_status(
    served: Served, leaf: type[errors.SandboxdError]
) -> None:
    async def fail(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        raise leaf("it is so", reason="because", message_for_agent="do otherwise")
        yield ACCEPTED

    served.executor.script = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(served.channel, RUN, GOOD)
    assert caught.value.code().name == leaf.status
    found = info(caught.value)
    assert (found.reason, found.domain) == ("because", "sandboxd.io")
    assert found.metadata["message_for_agent"] == "do otherwise"


async def test_unexpected_error_stays_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        yield ACCEPTED
        raise OSError(13, "permission denied", "/var/lib/sandboxd/secret")

    served.executor.script = fail
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(served.channel, RUN, GOOD)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{caught.value.details()}{caught.value.trailing_metadata()}"
    # Others may log meanwhile, such as asyncio of what an earlier test left to the garbage collector.
    (record,) = [record for record in caplog.records if record.name == "sandboxd.rpc.interceptors"]
    assert vars(record)["incident"] == info(caught.value).metadata["incident"]
    assert "secret" in caplog.text
    assert "Traceback" in caplog.text, "nobody foresaw it, so where it happened is all there is to go by"


@pytest.mark.parametrize("leaf", [errors.AuditUnavailable, errors.RuntimeFailed])
async def test_foreseen_error_of_the_node_is_one_record_that_says_what_is_wrong(
    leaf: type[errors.SandboxdError], served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        raise leaf("cannot write '/var/lib/sandboxd/secret': No space left on device") from OSError(28)
        yield ACCEPTED

    served.executor.script = fail
    with caplog.at_level(logging.WARNING), pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(served.channel, RUN, GOOD)
    assert "secret" not in f"{caught.value.details()}{caught.value.trailing_metadata()}"
    (record,) = [record for record in caplog.records if record.name.startswith("sandboxd")]
    assert record.exc_info is None
    assert vars(record)["error"] == "cannot write '/var/lib/sandboxd/secret': No space left on device"
    assert vars(record)["reason"] == leaf.default_reason
    assert vars(record)["incident"] == info(caught.value).metadata["incident"]


async def test_method_that_does_not_exist_is_unimplemented(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(served.channel, "/sandboxd.v1.SandboxService/Nothing", GOOD)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class Connection:
    """A call's context, as far as identity asks it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.end: Callable[[], None]

    def peer(self) -> str:
        return self.name

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self.end = lambda: callback(self)


@pytest.mark.parametrize("peer", [None, Peer(uid=4242, pid=1, allowed=False)], ids=["unknown", "stranger"])
def test_stranger_is_refused(peer: Peer | None, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = Peers(frozenset())
    monkeypatch.setattr(peers, "of", lambda _name: peer)
    with pytest.raises(errors.CallerRefused):
        Interceptors(peers, max_calls=2).identify(RUN, Connection("unix:"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("uid", "roles"), [(0, ("operator",)), (os.geteuid(), ("operator",)), (64_423, ())])
def test_root_and_the_daemons_own_uid_are_operators(
    uid: int, roles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = Peers(frozenset({uid}))
    monkeypatch.setattr(peers, "of", lambda _name: Peer(uid=uid, pid=1, allowed=True))
    caller = Interceptors(peers, max_calls=2).identify(RUN, Connection("unix:"))  # type: ignore[arg-type]
    assert (caller.subject, caller.roles) == (f"uid:{uid}", roles)


def test_calls_of_one_leave_the_others_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = Peers(frozenset({1, 2}))
    monkeypatch.setattr(peers, "of", lambda name: Peer(uid=int(name), pid=1, allowed=True))
    interceptors = Interceptors(peers, max_calls=4)

    def call(uid: int) -> Connection:
        connection = Connection(str(uid))
        assert interceptors.identify(RUN, connection).subject == f"uid:{uid}"  # type: ignore[arg-type]
        return connection

    under_way = [call(1) for _ in range(3)]
    with pytest.raises(errors.Overloaded, match="uid 1 has"):
        call(1)
    call(2)
    with pytest.raises(errors.Overloaded):
        call(2)
    under_way[0].end()
    call(1)
