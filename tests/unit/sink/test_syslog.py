import socket
import ssl
from pathlib import Path

import pytest
import trustme

from sandboxd.errors import ConfigInvalid
from sandboxd.settings.sinks.syslog import SyslogSettings
from sandboxd.sink import syslog
from sandboxd.sink.base import Sink
from tests.fakes.records import records
from tests.fakes.syslog import receiving


def sink(url: str, **settings: object) -> Sink:
    return syslog.create(SyslogSettings.model_validate({"type": "syslog", "url": url, **settings}), "node")


def seqs(messages: list[bytes]) -> list[int]:
    return [int(message.partition(b' seq="')[2].partition(b'"')[0]) for message in messages]


async def test_records_go_over_tcp_in_order() -> None:
    with receiving() as receiver:
        made = sink(f"tcp://127.0.0.1:{receiver.port}", facility="local0")
        await made.send(records(200))
        await made.send(records(50, first=201))
        assert seqs(receiver.messages) == list(range(1, 251))
        assert receiver.messages[0].startswith(b"<132>1 ")
        await made.close()


async def test_records_go_to_local_sockets(tmp_path: Path) -> None:
    with receiving(path=tmp_path / "stream") as receiver:
        made = sink(f"unix://{tmp_path}/stream")
        await made.send(records(3))
        assert seqs(receiver.messages) == [1, 2, 3]
        await made.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(tmp_path / "log"))
        made = sink(f"unixgram://{tmp_path}/log", message="text")
        await made.send(records(3))
        assert seqs([datagrams.recv(9000) for _ in range(3)]) == [1, 2, 3]
        await made.close()


async def test_over_tls_each_shows_who_it_is(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours = authority.issue_cert("node.test")
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    identity = {"ca": f"{tmp_path}/ca.pem", "certificate": f"{tmp_path}/cert.pem", "key": f"{tmp_path}/key.pem"}
    with receiving(tls=context) as receiver:
        known = sink(f"tls://127.0.0.1:{receiver.port}", **identity)
        await known.send(records(3))
        unknown = sink(f"tls://127.0.0.1:{receiver.port}", ca=identity["ca"])
        with pytest.raises(OSError, match=r".+"):
            await unknown.send(records(1))
        assert seqs(receiver.messages) == [1, 2, 3]
        for made in (known, unknown):
            await made.close()


def test_a_certificate_that_is_not_there_is_told_at_start() -> None:
    with pytest.raises(ConfigInvalid, match=r"sinks.syslog.ca '/none'"):
        sink("tls://127.0.0.1:1", ca="/none")
