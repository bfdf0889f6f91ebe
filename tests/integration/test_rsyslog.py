"""The sink `syslog` against a real rsyslog: every way there is, what it makes of a message, and its restart."""

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from sandboxd.audit.feed import Feed
from sandboxd.audit.recorder import Recorder
from sandboxd.settings.sinks.syslog import SyslogSettings
from sandboxd.sink import syslog
from sandboxd.sink.falco_event import falco_event
from tests.fakes.events import violated
from tests.fakes.records import recorded, records
from tests.skips import need_program

CONFIGURATION = """
global(workDirectory="{directory}" maxMessageSize="64k" defaultNetstreamDriverCAFile="{directory}/ca.pem"
       defaultNetstreamDriverCertFile="{directory}/server.pem" defaultNetstreamDriverKeyFile="{directory}/server.key")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
module(load="imptcp")
module(load="imuxsock" sysSock.use="off")
input(type="imtcp" port="{tls}" address="127.0.0.1")
input(type="imptcp" port="{tcp}" address="127.0.0.1")
input(type="imptcp" path="{directory}/stream" unlink="on")
input(type="imuxsock" socket="{directory}/log" useSpecialParser="off" parseHostname="on" rateLimit.interval="0")
template(name="whole" type="list") {{ property(name="jsonmesg") constant(value="\\n") }}
action(type="omfile" file="{directory}/out.jsonl" template="whole")
"""


@dataclass
class Rsyslog:
    program: str
    directory: Path
    tcp: int
    tls: int

    def start(self) -> None:
        command = [self.program, "-n", "-C", "-f", str(self.directory / "conf"), "-i", str(self.directory / "pid")]
        self._process = subprocess.Popen(command)
        for port in (self.tcp, self.tls):
            _wait_for(port)

    def stop(self) -> None:
        """In order: what it has read it writes out."""
        self._process.terminate()
        self._process.wait(20)

    def settings(self, way: str, **more: object) -> SyslogSettings:
        urls = {
            "tcp": f"tcp://127.0.0.1:{self.tcp}",
            "tls": f"tls://127.0.0.1:{self.tls}",
            "unix": f"unix://{self.directory}/stream",
            "unixgram": f"unixgram://{self.directory}/log",
        }
        identity = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"} if way == "tls" else {}
        paths = {key: str(self.directory / name) for key, name in identity.items()}
        return SyslogSettings.model_validate({"type": "syslog", "url": urls[way], **paths, **more})

    def written(self) -> list[dict[str, str]]:
        out = self.directory / "out.jsonl"
        return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    async def has(self, count: int) -> list[dict[str, str]]:
        async with asyncio.timeout(20):
            while len(found := self.written()) < count:
                await asyncio.sleep(0.05)
        return found


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for who, name in (("server", "127.0.0.1"), ("client", "node.test")):
        made = authority.issue_cert(name)
        made.private_key_pem.write_to_path(str(tmp_path / f"{who}.key"))
        made.cert_chain_pems[0].write_to_path(str(tmp_path / f"{who}.pem"))
    running = Rsyslog(need_program("rsyslogd", "rsyslog rsyslog-openssl"), tmp_path, _free_port(), _free_port())
    text = CONFIGURATION.format(directory=tmp_path, tcp=running.tcp, tls=running.tls)
    (tmp_path / "conf").write_text(text)
    running.start()
    yield running
    running.stop()


async def test_a_message_is_read_as_it_is_meant_whichever_way_it_came(rsyslog: Rsyslog) -> None:
    hostile = recorded(violated("\0\n\r\U0001f4a9\ud800\\", tenant='a"] [x@1 y="\\"\n<13>1'), 4)
    sent = [*records(3), hostile]
    for number, way in enumerate(("tcp", "tls", "unix", "unixgram")):
        sink = syslog.create(rsyslog.settings(way, facility="local3"), "node")
        await sink.send(sent)
        await sink.close()
        found = (await rsyslog.has(len(sent) * (number + 1)))[-len(sent) :]
        for record, message in zip(sent, found, strict=True):
            assert json.loads(message["msg"]) == falco_event(record)
            assert message["pri"] == str(19 * 8 + 4)
            assert (message["hostname"], message["app-name"], message["procid"], message["msgid"]) == (
                "node",
                "sandboxd",
                record.boot,
                "sandbox.violated",
            )
            assert f'seq="{record.seq}" sha256="{record.digest}"' in message["structured-data"]
        assert 'tenant="a\\"\\] [x@1 y=\\"\\\\\\"\\\\x0a<13>1"' in found[-1]["structured-data"]


@pytest.mark.parametrize("way", ["tcp", "tls"])
async def test_over_a_stream_a_restart_loses_nothing(way: str, rsyslog: Rsyslog, tmp_path: Path) -> None:
    settings = rsyslog.settings(way, timeout_seconds=2.0)
    recorder = Recorder.open(tmp_path / "state", "node", "b" * 32, "write")

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.1))

    feed = Feed(recorder, syslog.create(settings, "node"), settings, tmp_path / "cursors", sleep=sleep)
    feeding = asyncio.create_task(feed.run())
    for restart in range(2):
        for number in range(300):
            await recorder.record(violated(str(number)))
            await asyncio.sleep(0)
        if restart:
            await asyncio.to_thread(rsyslog.stop)
            await recorder.record(violated("nobody is there"))
            await asyncio.to_thread(rsyslog.start)
    async with asyncio.timeout(30):
        while feed.status.lag_records:
            await asyncio.sleep(0.05)
    count = recorder.readable.link.seq
    feeding.cancel()
    await asyncio.wait([feeding])
    await recorder.close()
    await rsyslog.has(count)
    seqs = [json.loads(message["msg"])["output_fields"]["audit.seq"] for message in rsyslog.written()]
    assert set(seqs) == set(range(1, count + 1))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port: int = made.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
