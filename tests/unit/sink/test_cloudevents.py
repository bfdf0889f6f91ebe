import asyncio
import gzip
import json
from asyncio import StreamWriter
from collections.abc import Callable

import pytest

from sandboxd.settings.sinks.cloudevents import CloudEventsSettings
from sandboxd.sink.base import Record, Sink, SinkRefused, SinkUnavailable
from sandboxd.sink.cloud_event import cloud_event
from sandboxd.sink.cloudevents import create
from tests.cloudevents_receiver import received
from tests.fakes.http import Asked, ScriptedServer, response, says, scripted

MODES = pytest.mark.parametrize("mode", ["structured", "batched"])


def record(seq: int, execution: str = "", text: str = "y") -> Record:
    ids = (("tenant", "t"), ("execution_id", execution))
    return Record(seq, "b", "n", "2001-09-09T01:46:40.000000001Z", "a.b", "Notice", ids, (("x", text),))


def made(url: str, mode: str, **keys: object) -> Sink:
    return create(CloudEventsSettings.model_validate({"type": "cloudevents", "url": url, "mode": mode, **keys}), "n")


class Receiver:
    """Takes what `answer` does not say otherwise of."""

    def __init__(self, answer: Callable[[Asked], bytes | None] = lambda _: None) -> None:
        self._answer = answer
        self.server = ScriptedServer()
        self.taken: list[Asked] = []

    async def __call__(self, writer: StreamWriter) -> None:
        asked = self.server.asked[-1]
        said = self._answer(asked)
        if said is None:
            self.taken.append(asked)
        writer.write(response("", "202 Accepted") if said is None else said)


def at_first(*answers: bytes) -> Callable[[Asked], bytes | None]:
    left = list(answers)
    return lambda _: left.pop(0) if left else None


async def test_structured_events_are_a_post_each() -> None:
    async with scripted(says(response("", "204 No Content"))) as server:
        sink = made(f"{server.url}/in", "structured")
        await sink.send([record(1), record(2)])
        await sink.close()
    assert received(server.asked) == [1, 2]
    assert {(asked.line, asked.headers["content-type"]) for asked in server.asked} == {
        ("POST /in HTTP/1.1", "application/cloudevents+json; charset=utf-8")
    }
    assert server.asked[0].body == cloud_event(record(1))


async def test_batched_events_are_a_list_in_order() -> None:
    async with scripted(says(response(""))) as server:
        sink = made(server.url, "batched", batch_events=4)
        await sink.send([record(seq, f"{seq % 3}") for seq in range(1, 11)])
        await sink.close()
    assert received(server.asked) == list(range(1, 11))
    assert [len(json.loads(asked.body)) for asked in server.asked] == [4, 4, 2]
    assert {asked.headers["content-type"] for asked in server.asked} == {
        "application/cloudevents-batch+json; charset=utf-8"
    }


async def test_a_batch_stays_within_its_bytes_unless_one_event_is_larger() -> None:
    async with scripted(says(response(""))) as server:
        sink = made(server.url, "batched", batch_bytes=4096)
        small = [record(seq, text="s" * 500) for seq in range(1, 10)]
        await sink.send([*small, record(10, text="l" * 9000), *(record(seq) for seq in range(11, 13))])
        await sink.close()
    assert received(server.asked) == list(range(1, 13))
    sizes = [(len(json.loads(asked.body)), len(asked.body)) for asked in server.asked]
    assert [count for count, size in sizes if size > 4096] == [1]
    assert len(sizes) < 6


async def test_compressed_bodies_say_so() -> None:
    async with scripted(says(response(""))) as server:
        sink = made(server.url, "batched", compression=True)
        await sink.send([record(1)])
        await sink.close()
    assert server.asked[0].headers["content-encoding"] == "gzip"
    assert gzip.decompress(server.asked[0].body) == b"[" + cloud_event(record(1)) + b"]"


async def test_a_receiver_that_takes_less_gets_less_for_a_while() -> None:
    def answer(asked: Asked) -> bytes | None:
        return response("", "413 Content Too Large") if len(asked.body) > 2000 else None

    receiver = Receiver(answer)
    async with scripted(receiver) as receiver.server:
        sink = made(receiver.server.url, "batched")
        await sink.send([record(seq) for seq in range(1, 41)])
        first = len(receiver.server.asked) - len(receiver.taken)
        await sink.send([record(seq) for seq in range(41, 81)])
        await sink.close()
    assert received(receiver.taken) == list(range(1, 81))
    assert first == len(receiver.server.asked) - len(receiver.taken) > 0


async def test_a_receiver_that_takes_more_again_gets_more_again() -> None:
    receiver = Receiver(at_first(response("", "413 Content Too Large"), response("", "413 Content Too Large")))
    async with scripted(receiver) as receiver.server:
        sink = made(receiver.server.url, "batched", batch_events=8)
        await sink.send([record(seq) for seq in range(1001, 1009)])
        for start in range(1009, 1809, 200):
            await sink.send([record(seq) for seq in range(start, start + 200)])
        await sink.close()
    assert received(receiver.taken) == list(range(1001, 1809))
    sizes = [len(json.loads(asked.body)) for asked in receiver.taken]
    assert (sizes[0], sizes[-1]) == (2, 8)
    assert sizes == sorted(sizes)


@MODES
async def test_one_event_that_is_too_large_is_refused_by_its_number(mode: str) -> None:
    def answer(asked: Asked) -> bytes | None:
        return response("", "413 Content Too Large") if b"zzz" in asked.body else None

    receiver = Receiver(answer)
    async with scripted(receiver) as receiver.server:
        sink = made(receiver.server.url, mode)
        with pytest.raises(SinkRefused, match="413") as caught:
            await sink.send([record(1), record(2), record(3, text="zzz"), record(4)])
        await sink.close()
    assert caught.value.seq == 3
    assert received(receiver.taken) == [1, 2]


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Content"])
async def test_an_event_that_is_never_taken_is_refused_by_its_number(status: str) -> None:
    async with scripted(says(response("", status))) as server:
        for mode in ("structured", "batched"):
            sink = made(server.url, mode)
            with pytest.raises(SinkRefused) as caught:
                await sink.send([record(5)])
            assert caught.value.seq == 5
            await sink.close()


async def test_of_a_refused_batch_nobody_knows_which() -> None:
    async with scripted(says(response("", "400 Bad Request"))) as server:
        sink = made(server.url, "batched")
        with pytest.raises(SinkRefused) as caught:
            await sink.send([record(1), record(2)])
        assert caught.value.seq is None
        await sink.close()


@MODES
@pytest.mark.parametrize(
    ("answer", "says_so", "after"),
    [
        (response("", "429 Too Many Requests", "Retry-After: 7"), "it answered 429", 7.0),
        (response("", "503 Service Unavailable", "Retry-After: 999999"), "it answered 503", 300.0),
        (response("", "503 Service Unavailable", "Retry-After: soon"), "it answered 503", 0.0),
        (response("", "500 Internal Server Error", "Retry-After: 7"), "it answered 500", 0.0),
        (response("", "401 Unauthorized"), "it answered 401", 0.0),
        (response("", "404 Not Found"), "it answered 404", 0.0),
        (response("", "308 Permanent Redirect", "Location: /x"), "it answered 308", 0.0),
        (response("", "415 Unsupported Media Type"), "set mode to the other one", 0.0),
        (b"garbage\r\n\r\n", "Error", 0.0),
    ],
)
async def test_what_somebody_can_mend_is_sent_again_and_nothing_twice(
    mode: str, answer: bytes, says_so: str, after: float
) -> None:
    receiver = Receiver(at_first(answer))
    async with scripted(receiver) as receiver.server:
        sink = made(receiver.server.url, mode, connections=1, batch_events=1)
        records = [record(1, "a"), record(2, "a")]
        with pytest.raises(SinkUnavailable, match=says_so) as caught:
            await sink.send(records)
        assert caught.value.after_seconds == after
        await sink.send(records)
        await sink.close()
    assert received(receiver.taken) == [1, 2]


@MODES
async def test_what_was_taken_is_not_sent_again_with_what_was_not(mode: str) -> None:
    receiver = Receiver(lambda asked: response("", "500 No") if len(receiver.server.asked) == 2 else None)
    async with scripted(receiver) as receiver.server:
        sink = made(receiver.server.url, mode, connections=1, batch_events=2)
        records = [record(seq, "a") for seq in range(1, 6)]
        with pytest.raises(SinkUnavailable):
            await sink.send(records)
        await sink.send(records)
        await sink.close()
    assert received(receiver.taken) == [1, 2, 3, 4, 5]


async def test_executions_go_side_by_side() -> None:
    waiting = most = 0

    async def slow(writer: StreamWriter) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.01)
        waiting -= 1
        writer.write(response(""))

    async with scripted(slow) as server:
        sink = made(server.url, "structured", connections=3)
        await sink.send([record(seq, f"{seq % 5}") for seq in range(1, 21)])
        await sink.close()
    assert most == 3


@MODES
@pytest.mark.parametrize(
    ("status", "there"),
    [
        ("200 OK", True),
        ("405 Method Not Allowed", True),
        ("400 Bad Request", True),
        ("401 Unauthorized", False),
        ("403 Forbidden", False),
        ("404 Not Found", False),
        ("502 Bad Gateway", False),
    ],
)
async def test_a_required_receiver_shows_that_it_is_there(mode: str, status: str, there: bool) -> None:
    async with scripted(says(response("", status))) as server:
        sink = made(f"{server.url}/in", mode)
        if there:
            await sink.send([])
        else:
            with pytest.raises(SinkUnavailable, match="set url to where it takes events"):
                await sink.send([])
        await sink.close()
    assert [asked.line for asked in server.asked] == ["GET /in HTTP/1.1"]


@MODES
async def test_a_receiver_that_is_not_there_is_not_proved(mode: str) -> None:
    async with scripted(says(response(""))) as server:
        url = server.url
    sink = made(url, mode)
    for records in ([], [record(1)]):
        with pytest.raises(SinkUnavailable, match="Connect"):
            await sink.send(records)
    await sink.close()
