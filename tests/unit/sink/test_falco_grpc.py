import asyncio
import logging
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme

from sandboxd.errors import ConfigInvalid
from sandboxd.settings.sinks.falco_grpc import FalcoGrpcSettings, FalcoGrpcTls
from sandboxd.sink.base import SinkUnavailable
from sandboxd.sink.falco_grpc import FalcoGrpcSink, create
from tests.falco_outputs import connected, record, seqs, take
from tests.opa import free_port


def settings(path: Path, **values: object) -> FalcoGrpcSettings:
    return FalcoGrpcSettings.model_validate({"type": "falco_grpc", "socket": str(path / "run" / "f"), **values})


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[FalcoGrpcSink]:
    made = FalcoGrpcSink(settings(tmp_path, queue_events=100))
    await made.send([])
    yield made
    await made.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def target(path: Path) -> str:
    return f"unix:{path}/run/f"


async def test_events_that_were_sent_can_be_fetched_later(tmp_path: Path, sink: FalcoGrpcSink) -> None:
    await sink.send([record(1), record(2)])
    async with connected(target(tmp_path)) as client:
        assert seqs(await client.get()) == [1, 2]


async def test_socket_is_private_and_leaves_nothing_but_its_lock(tmp_path: Path, sink: FalcoGrpcSink) -> None:
    assert [mode(tmp_path / "run" / name) for name in ("", "f", ".f.d")] == [0o700, 0o600, 0o700]
    await sink.close()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["f.lock"]


async def test_a_group_that_may_connect_gets_through(tmp_path: Path) -> None:
    made = FalcoGrpcSink(settings(tmp_path, socket_mode="0660"))
    await made.send([])
    assert [mode(tmp_path / "run" / name) for name in ("", "f", ".f.d")] == [0o710, 0o660, 0o700]
    await made.close()


async def test_socket_that_is_served_is_not_taken(tmp_path: Path, sink: FalcoGrpcSink) -> None:
    with pytest.raises(ConfigInvalid, match=r"another daemon serves .*/f'; stop it or set sinks\.falco_grpc\.socket"):
        create(settings(tmp_path), "n")
    await sink.send([record(1)])
    async with connected(target(tmp_path)) as client:
        assert seqs(await client.get()) == [1]


async def test_socket_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "run" / "f"))
        other.listen()
        with pytest.raises(ConfigInvalid, match="another daemon serves"):
            create(settings(tmp_path), "n")
    made = FalcoGrpcSink(settings(tmp_path))  # now it is stale
    await made.send([record(1)])
    async with connected(target(tmp_path)) as client:
        assert seqs(await client.get()) == [1]
    await made.close()


async def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * (104 - len(str(tmp_path))))
    with pytest.raises(ConfigInvalid, match=r"too long; set sinks\.falco_grpc\.socket to a shorter one"):
        create(FalcoGrpcSettings(type="falco_grpc", socket=str(long)), "n")


async def test_nobody_there_costs_the_ring_and_is_said_once(
    sink: FalcoGrpcSink, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for start in range(1, 1001, 250):
            await sink.send([record(seq) for seq in range(start, start + 250)])
    assert sink.dropped == 900
    assert [entry.message for entry in caplog.records] == ["events are dropped that nobody fetches"]


async def test_a_subscriber_who_does_not_read_holds_up_nobody(tmp_path: Path, sink: FalcoGrpcSink) -> None:
    async with connected(target(tmp_path)) as idle, connected(target(tmp_path)) as client, asyncio.timeout(60):
        stuck = await idle.sub()
        await stuck.wait_for_connection()
        start = 1
        while len(await client.get()) < 100:  # until what fits on its way to the other is there
            await sink.send([record(seq, "y" * 500) for seq in range(start, start + 100)])
            start += 100
        stuck.cancel()


async def test_closing_ends_a_subscriber_who_does_not_read(tmp_path: Path, sink: FalcoGrpcSink) -> None:
    async with connected(target(tmp_path)) as idle:
        await idle.sub()
        await sink.send([record(seq, "y" * 500) for seq in range(1, 101)])
        async with asyncio.timeout(20):
            await sink.close()


async def test_a_large_request_is_refused(tmp_path: Path, sink: FalcoGrpcSink) -> None:
    async with connected(target(tmp_path)) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.version(b"\x0a\xff\x7f" + b"x" * 16383)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class Authority:
    """Makes files and credentials below a directory."""

    def __init__(self, path: Path) -> None:
        self.ca, self.other, self.path = trustme.CA(), trustme.CA(), path
        self.ca.cert_pem.write_to_path(path / "ca")
        ours = self.ca.issue_cert("127.0.0.1")
        ours.private_key_pem.write_to_path(path / "key")
        ours.cert_chain_pems[0].write_to_path(path / "cert")

    def tls(self, port: int) -> FalcoGrpcTls:
        names = {"certificate": "cert", "key": "key", "client_ca": "ca"}
        paths = {key: str(self.path / name) for key, name in names.items()}
        return FalcoGrpcTls.model_validate({"address": f"127.0.0.1:{port}", **paths})

    def client(self, by: trustme.CA | None) -> grpc.ChannelCredentials:
        """Of a client that has a certificate of that authority."""
        if by is None:
            return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes())
        leaf = by.issue_cert("client.example")
        pair = leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes(), *pair)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_over_tcp_only_a_certificate_of_the_clients_authority_is_answered(
    tmp_path: Path, authority: Authority
) -> None:
    port = free_port()
    made = FalcoGrpcSink(settings(tmp_path, tls=authority.tls(port)))
    await made.send([record(1)])
    for stranger in (authority.client(None), authority.client(authority.other), None):
        async with connected(f"127.0.0.1:{port}", stranger) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.get()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    async with connected(f"127.0.0.1:{port}", authority.client(authority.ca)) as client:
        assert seqs(await take(await client.sub(), 1)) == [1]
    await made.close()


async def test_a_port_in_use_is_tried_again(tmp_path: Path, authority: Authority) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        made = FalcoGrpcSink(settings(tmp_path, tls=authority.tls(port)))
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match=f"cannot listen at '127.0.0.1:{port}'"):
                await made.send([record(1)])
        assert not (tmp_path / "run" / "f").exists()
    await made.send([record(1)])
    for place, credentials in ((target(tmp_path), None), (f"127.0.0.1:{port}", authority.client(authority.ca))):
        async with connected(place, credentials) as client:
            assert await client.version(b"")
    await made.close()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("ca", None, r"tls\.client_ca '.*/ca' cannot be read: No such file"),
        ("ca", "no certificate", r"tls\.client_ca '.*/ca' holds no certificate"),
        ("key", None, r"tls\.key '.*/key' cannot be read"),
        ("cert", "no certificate", r"tls\.certificate '.*/cert' and key '.*/key' cannot be used together"),
    ],
)
async def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, authority: Authority, name: str, content: str | None, says: str
) -> None:
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigInvalid, match=says):
        create(settings(tmp_path, tls=authority.tls(5060)), "n")
    assert not (tmp_path / "run").exists()
