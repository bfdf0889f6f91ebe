"""A client of Falco's gRPC outputs with our own generated messages: a stand-in for the real one where that would not do
what a test needs, such as being slow. The real one is tried in tests/integration/test_falco_client.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from sandboxd.audit.line import Link, body, decode, encode
from sandboxd.sink.base import Record
from sandboxd.sink.falco_api import outputs_pb2, version_pb2
from tests.fakes.events import violated

SECONDS = 60.0
Call = grpc.aio.StreamStreamCall[bytes, outputs_pb2.response]
REQUEST = outputs_pb2.request().SerializeToString()
# A connection of its own, which has no more on its way to a client that does not read than it begins with.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))


def record(seq: int, detail: str = "x") -> Record:
    line = encode(body(violated(detail)), Link(seq - 1, "0" * 64), "boot", "node", 1_700_000_000_000_000_000 + seq)
    return decode(line[:-1])


def seqs(responses: list[outputs_pb2.response]) -> list[int]:
    return [int(response.output_fields["audit.seq"]) for response in responses]


class OutputsClient:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._get: grpc.aio.UnaryStreamMultiCallable[bytes, outputs_pb2.response] = channel.unary_stream(
            "/falco.outputs.service/get", response_deserializer=outputs_pb2.response.FromString
        )
        self._sub: grpc.aio.StreamStreamMultiCallable[bytes, outputs_pb2.response] = channel.stream_stream(
            "/falco.outputs.service/sub", response_deserializer=outputs_pb2.response.FromString
        )
        self.version: grpc.aio.UnaryUnaryMultiCallable[bytes, version_pb2.response] = channel.unary_unary(
            "/falco.version.service/version", response_deserializer=version_pb2.response.FromString
        )

    async def get(self) -> list[outputs_pb2.response]:
        return [response async for response in self._get(REQUEST)]

    async def sub(self, *, asked: int = 1) -> Call:
        """After that many requests."""
        call = self._sub()
        for _ in range(asked):
            await call.write(REQUEST)
        return call


async def take(call: Call, count: int) -> list[outputs_pb2.response]:
    found: list[outputs_pb2.response] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < count:
            response = await call.read()
            assert isinstance(response, outputs_pb2.response), "the stream has ended"
            found.append(response)
    return found


async def rest(call: Call) -> list[outputs_pb2.response]:
    """To its end."""
    async with asyncio.timeout(SECONDS):
        return [response async for response in call]


@asynccontextmanager
async def connected(target: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[OutputsClient]:
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
    async with channel:
        yield OutputsClient(channel)
