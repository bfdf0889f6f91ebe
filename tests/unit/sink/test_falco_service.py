import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import cast, get_args

import grpc
import grpc.aio
import pytest

from sandboxd import __version__
from sandboxd.audit.line import ORIGIN, body, decode
from sandboxd.audit.line import encode as encode_line
from sandboxd.event import Event, Priority
from sandboxd.sink.base import Record
from sandboxd.sink.falco_api import outputs_pb2, schema_pb2
from sandboxd.sink.falco_ring import Ring
from sandboxd.sink.falco_service import Context, Outputs, encode, handlers
from tests.fakes.events import made
from tests.falco_outputs import SECONDS, OutputsClient, connected, record, rest, seqs, take
from tests.hostile import KINDS, hostile


class Served:
    def __init__(self, target: str) -> None:
        self.target = target
        self.ring = Ring(1000, 1 << 20)
        self.outputs = Outputs(self.ring)

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.ring.put(encode(record(number)))

    async def subscribed(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while self.outputs.subscribers != count:
                await asyncio.sleep(0)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(f"unix:{tmp_path}/s")
    server = grpc.aio.server(handlers=handlers(made.outputs))
    server.add_insecure_port(made.target)
    await server.start()
    yield made
    await server.stop(None)


@pytest.fixture
async def client(served: Served) -> AsyncIterator[OutputsClient]:
    async with connected(served.target) as made:
        yield made


async def test_get_hands_out_what_is_queued_and_ends(served: Served, client: OutputsClient) -> None:
    served.put(1, 2, 3)
    assert seqs(await client.get()) == [1, 2, 3]
    assert await client.get() == []


async def test_sub_hands_out_what_is_queued_and_goes_on(served: Served, client: OutputsClient) -> None:
    served.put(1, 2)
    call = await client.sub()
    assert seqs(await take(call, 2)) == [1, 2]
    for number in (3, 4, 5):
        served.put(number)
        assert seqs(await take(call, 1)) == [number]


async def test_a_request_is_not_one_event(served: Served, client: OutputsClient) -> None:
    served.put(*range(1, 41))
    few = await client.sub(asked=2)
    assert seqs(await take(few, 40)) == list(range(1, 41))
    many = await client.sub(asked=10)
    await many.done_writing()
    assert await rest(many) == []


async def test_nothing_comes_before_the_first_request(served: Served, client: OutputsClient) -> None:
    call = await client.sub(asked=0)
    await call.wait_for_connection()
    assert await client.get() == []  # so the call before it is being served
    served.put(1)
    assert seqs(await client.get()) == [1]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_client_that_asks_no_more_gets_what_is_queued_and_the_end(
    served: Served, client: OutputsClient
) -> None:
    served.put(1, 2)
    call = await client.sub()
    await call.done_writing()
    assert seqs(await rest(call)) == [1, 2]
    assert await call.code() is grpc.StatusCode.OK


async def test_an_event_goes_to_one_of_its_subscribers(served: Served, client: OutputsClient) -> None:
    async with connected(served.target) as other:
        calls = [await client.sub(), await other.sub()]
        await served.subscribed(2)
        served.put(*range(1, 101))
        for call in calls:
            await call.done_writing()
        found = [seqs(await rest(call)) for call in calls]
    assert sorted(found[0] + found[1]) == list(range(1, 101))
    assert all(part == sorted(part) for part in found)


async def test_what_a_client_left_before_taking_is_the_next_ones(served: Served, client: OutputsClient) -> None:
    class Gone:
        async def write(self, _event: bytes) -> None:
            raise asyncio.CancelledError

    served.put(1, 2)
    with pytest.raises(asyncio.CancelledError):
        await served.outputs.get(b"", cast(Context, Gone()))
    assert seqs(await client.get()) == [1, 2]


async def test_a_client_that_leaves_is_forgotten(served: Served, client: OutputsClient) -> None:
    call = await client.sub()
    await served.subscribed(1)
    call.cancel()
    await served.subscribed(0)
    served.put(1)
    assert seqs(await client.get()) == [1]


async def test_a_client_that_asks_all_the_time_is_heard_now_and_then(served: Served, client: OutputsClient) -> None:
    heard = 0

    async def requests() -> AsyncIterator[bytes]:
        nonlocal heard
        while heard < 100_000:
            heard += 1
            yield b""

    class Idle:
        async def write(self, _event: bytes) -> None:
            raise AssertionError("there is nothing to write")

    task = asyncio.create_task(served.outputs.sub(requests(), cast(Context, Idle())))
    for _ in range(3):
        assert (await client.version(b"")).version  # takes its turn
    task.cancel()
    await asyncio.wait({task})
    assert heard < 100


async def test_closing_ends_subscriptions_with_what_is_queued(served: Served, client: OutputsClient) -> None:
    call = await client.sub()
    await served.subscribed(1)
    served.put(1)
    served.outputs.close()
    assert seqs(await rest(call)) == [1]
    assert await call.code() is grpc.StatusCode.OK


async def test_version_is_ours_with_a_checksum_of_all_fields(client: OutputsClient) -> None:
    found = await client.version(b"")
    assert found.version == __version__ == f"{found.major}.{found.minor}.{found.patch}"
    assert found.engine_version == 1
    assert re.fullmatch("[0-9a-f]{64}", found.engine_fields_checksum)


def test_an_event_has_the_fields_of_falcos_json_as_text() -> None:
    values = (("flag", True), ("code", None), ("count", 7), ("list", ("a", "b")), ("text", "\ud800\0\n"))
    made = Record(5, "b", "n", "2001-09-09T01:46:40.000000007Z", "a.b", "Notice", (("tenant", "t"),), values)
    found = outputs_pb2.response.FromString(encode(made))
    assert (found.time.seconds, found.time.nanos) == (1_000_000_000, 7)
    assert (found.rule, found.hostname, found.source, list(found.tags)) == ("a.b", "n", "sandboxd", ["sandboxd", "a"])
    assert found.priority == schema_pb2.NOTICE
    assert found.output.startswith("01:46:40.000000007: Notice a.b")
    fields = dict(found.output_fields)
    shown = ("sandbox.flag", "sandbox.code", "sandbox.count", "sandbox.list", "evt.time", "audit.seq")
    assert [fields[name] for name in shown] == ["true", "<NA>", "7", "a,b", "1000000000000000007", "5"]
    assert fields["sandbox.text"].endswith("\0\n")


@pytest.mark.parametrize("priority", get_args(Priority))
def test_each_priority_has_falcos_number(priority: str) -> None:
    made = Record(5, "b", "n", "2001-09-09T01:46:40.000000007Z", "a.b", priority, (), ())
    assert outputs_pb2.response.FromString(encode(made)).priority == get_args(Priority).index(priority)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.rule)
def test_every_kind_of_event_is_a_message_whether_empty_or_hostile(kind: type[Event]) -> None:
    for event in (made(kind), *(hostile(Random(seed), kind) for seed in range(3))):
        sent = decode(encode_line(body(event), ORIGIN, "boot", "node", 1_700_000_000_000_000_000)[:-1])
        found = outputs_pb2.response.FromString(encode(sent))
        assert (found.rule, found.output_fields["evt.type"]) == (kind.rule, kind.rule)


def test_clients_as_old_as_the_removed_service_know_the_source() -> None:
    assert outputs_pb2.response.FromString(encode(record(1))).source_deprecated in (0, 1, 2)


def test_the_messages_of_falcos_own_library_fit_beside_ours() -> None:
    program = """
from google.protobuf import descriptor_pool, timestamp_pb2
from sandboxd.sink.falco_api import outputs_pb2, schema_pb2
for module in (schema_pb2, outputs_pb2):
    descriptor_pool.Default().AddSerializedFile(module.DESCRIPTOR.serialized_pb)
theirs = descriptor_pool.Default().FindMessageTypeByName("falco.outputs.response")
assert theirs is not outputs_pb2.response.DESCRIPTOR
print(outputs_pb2.response(rule="fits").rule)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("fits\n", 0), done.stderr
