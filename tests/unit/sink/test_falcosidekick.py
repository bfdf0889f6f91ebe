import asyncio
import gzip
import json
import ssl
from asyncio import StreamWriter
from pathlib import Path

import pytest
import trustme

from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.sink.base import Record, SinkRefused, SinkUnavailable
from sandboxd.sink.falcosidekick import FalcosidekickSink, create
from tests.fakes.http import Asked, response, says, scripted

INVALID = response("Please send a valid request body\n", "400 Bad Request")


def record(seq: int, execution: str = "") -> Record:
    ids = (("tenant", "t"), ("execution_id", execution))
    return Record(seq, "b", "n", "2001-09-09T01:46:40.000000001Z", "a.b", "Notice", ids, (("x", "y"),))


def settings(url: str, **keys: object) -> FalcosidekickSettings:
    return FalcosidekickSettings.model_validate({"type": "falcosidekick", "url": url, **keys})


def seqs(asked: list[Asked]) -> list[int]:
    return [json.loads(each.body)["output_fields"]["audit.seq"] for each in asked]


class Server:
    """Says what is next in `answers`, and takes the event once there is none left."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    async def __call__(self, writer: StreamWriter) -> None:
        writer.write(self.answers.pop(0) if self.answers else response(""))


async def test_each_record_is_one_post_of_one_falco_event() -> None:
    async with scripted(says(response(""))) as made:
        sink = create(settings(made.url, headers={"X-Cluster": "c 1"}), "n")
        await sink.send([record(1), record(2)])
        await sink.close()
    assert seqs(made.asked) == [1, 2]
    assert {asked.line for asked in made.asked} == {"POST / HTTP/1.1"}
    assert {asked.headers["content-type"] for asked in made.asked} == {"application/json"}
    assert {asked.headers["x-cluster"] for asked in made.asked} == {"c 1"}
    assert not made.asked[0].body.endswith(b"\n")
    event = json.loads(made.asked[0].body)
    assert set(event) == {"time", "rule", "priority", "source", "hostname", "output", "tags", "output_fields"}


async def test_executions_go_side_by_side_and_each_in_its_order() -> None:
    waiting: list[int] = []
    most = 0

    async def slow(writer: StreamWriter) -> None:
        nonlocal most
        waiting.append(1)
        most = max(most, len(waiting))
        await asyncio.sleep(0.01)
        waiting.pop()
        writer.write(response(""))

    async with scripted(slow) as made:
        sink = FalcosidekickSink(settings(made.url, connections=3))
        records = [record(seq, f"{seq % 5:x}" if seq % 6 else "") for seq in range(1, 61)]
        await sink.send(records)
        await sink.close()
    assert most == 3
    assert sorted(seqs(made.asked)) == list(range(1, 61))
    for execution in {dict(each.ids)["execution_id"] for each in records}:
        own = [each.seq for each in records if dict(each.ids)["execution_id"] == execution]
        assert [seq for seq in seqs(made.asked) if seq in own] == own


async def test_what_was_taken_is_not_sent_again_with_what_was_not() -> None:
    async with scripted(Server(response(""), response("", "500 Internal Server Error"))) as made:
        sink = FalcosidekickSink(settings(made.url, connections=1))
        batch = [record(1, "a"), record(2, "a"), record(3, "a"), record(4, "b")]
        with pytest.raises(SinkUnavailable, match="it answered 500"):
            await sink.send(batch)
        assert seqs(made.asked) == [1, 2]
        await sink.send(batch)
        assert seqs(made.asked) == [1, 2, 2, 3, 4]
        await sink.send([record(1, "a")])
        assert seqs(made.asked)[-1] == 1
        await sink.close()


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_receiver_says_when_to_come_again(status: str) -> None:
    async with scripted(says(response("", status, "Retry-After: 7"))) as made:
        with pytest.raises(SinkUnavailable) as caught:
            await FalcosidekickSink(settings(made.url)).send([record(1)])
    assert caught.value.after_seconds == 7.0


@pytest.mark.parametrize(
    "answer",
    [
        response("", "301 Moved Permanently", "Location: /else"),
        response("", "401 Unauthorized", "Retry-After: 7"),
        response("", "404 Not Found"),
        response("Client sent an HTTP request to an HTTPS server.\n", "400 Bad Request"),
        response("", "413 Content Too Large"),
        response("Please send a valid request body\n", "500 Internal Server Error"),
        b"SSH-2.0\r\n\r\n",
    ],
)
async def test_no_other_answer_loses_a_record(answer: bytes) -> None:
    async with scripted(says(answer)) as made:
        with pytest.raises(SinkUnavailable) as caught:
            await FalcosidekickSink(settings(made.url)).send([record(1)])
    assert caught.value.after_seconds == 0.0


async def test_a_record_is_refused_once_it_was_refused_twice() -> None:
    async with scripted(Server(response(""), INVALID, INVALID)) as made:
        sink = FalcosidekickSink(settings(made.url, connections=1))
        with pytest.raises(SinkRefused) as caught:
            await sink.send([record(1), record(2), record(3)])
        assert caught.value.seq == 2
        await sink.send([record(1), record(3)])
        assert seqs(made.asked) == [1, 2, 2, 3]
        await sink.close()
    async with scripted(Server(INVALID)) as made:
        await FalcosidekickSink(settings(made.url)).send([record(1)])
    assert seqs(made.asked) == [1, 1]


async def test_compression_is_given_up_with_a_receiver_that_does_not_take_it() -> None:
    async with scripted(Server(INVALID)) as made:
        sink = FalcosidekickSink(settings(made.url, compression=True))
        await sink.send([record(1), record(2)])
        await sink.close()
    assert [asked.headers.get("content-encoding") for asked in made.asked] == ["gzip", None, None]


async def test_a_refused_record_does_not_end_compression() -> None:
    async with scripted(Server(INVALID, INVALID)) as made:
        sink = FalcosidekickSink(settings(made.url, compression=True))
        with pytest.raises(SinkRefused):
            await sink.send([record(1)])
        await sink.send([record(2)])
        await sink.close()
    assert [asked.headers.get("content-encoding") for asked in made.asked] == ["gzip", None, "gzip"]
    assert json.loads(gzip.decompress(made.asked[2].body))["output_fields"]["audit.seq"] == 2


@pytest.mark.parametrize(
    "answer",
    [
        response("pong\n"),
        response("Please send with post http method\n", "400 Bad Request"),
        response("Only POST allowed\n", "405 Method Not Allowed"),
    ],
)
@pytest.mark.parametrize("path", ["", "/", "/side"])
async def test_nothing_to_send_proves_that_the_receiver_is_there(answer: bytes, path: str) -> None:
    async with scripted(says(answer)) as made:
        sink = FalcosidekickSink(settings(made.url + path))
        await sink.send(())
        await sink.close()
    assert [asked.line for asked in made.asked] == [f"GET {path.rstrip('/')}/ping HTTP/1.1"]


@pytest.mark.parametrize(
    "answer", [response("<html>"), response("pong", "404 Not Found"), response("", "405 Method Not Allowed")]
)
async def test_another_server_proves_nothing(answer: bytes) -> None:
    async with scripted(says(answer)) as made:
        with pytest.raises(SinkUnavailable, match="not as falcosidekick does"):
            await FalcosidekickSink(settings(made.url)).send(())
    with pytest.raises(SinkUnavailable, match="Connect"):
        await FalcosidekickSink(settings(made.url)).send(())


async def test_closing_ends_its_connections() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(""))
        while await reader.read(65536):
            pass
        ended.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        sink = FalcosidekickSink(settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        await sink.send([record(1)])
        assert not ended.is_set()
        await sink.close()
        await ended.wait()


async def test_a_send_that_is_given_up_leaves_nothing_under_way() -> None:
    reached = asyncio.Event()

    async def hangs(_: StreamWriter) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with scripted(hangs) as made:
        sink = FalcosidekickSink(settings(made.url))
        sending = asyncio.create_task(sink.send([record(1)]))
        await reached.wait()
        before = asyncio.all_tasks()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert len(asyncio.all_tasks()) == len(before) - 2  # itself and its one worker
        await sink.close()


async def test_over_tls_both_sides_must_be_known(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    for name, issuer in (("ours", authority), ("foreign", other)):
        issued = issuer.issue_cert("sandboxd")
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with scripted(says(response("")), tls=context) as made:
        for name, taken in (("ours", True), ("foreign", False)):
            identity = {"certificate": f"{tmp_path}/{name}.pem", "key": f"{tmp_path}/{name}.key"}
            sink = FalcosidekickSink(settings(made.url, ca=f"{tmp_path}/ca.pem", **identity))
            if taken:
                await sink.send([record(1)])
            else:
                with pytest.raises(SinkUnavailable):
                    await sink.send([record(2)])
            await sink.close()
        with pytest.raises(SinkUnavailable):
            await FalcosidekickSink(settings(made.url)).send([record(3)])
    assert seqs(made.asked) == [1]
