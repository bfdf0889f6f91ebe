"""Falco's outputs and version services as Falco 0.43 served them, over a ring of events.

One queue stands behind all callers, so an event goes to one of them, as with Falco. `get` hands out what is queued and
ends; `sub` goes on with each event as it happens. A request of `sub` shows that the client is there and no more:
clients send one ten times a second and must not be answered one event each. Falco itself looks into its queue at each
request, we do not let a client wait for that. An event that a client left before taking it is the next one's. Source:
falcosecurity/falco `userspace/falco/grpc_server.cpp`, `outputs_grpc.cpp`. Served by `falco_grpc`.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Final, get_args

import grpc
import grpc.aio

from sandboxd import __version__, event
from sandboxd.event import Priority
from sandboxd.sink.base import Record
from sandboxd.sink.falco_api import outputs_pb2, schema_pb2, version_pb2
from sandboxd.sink.falco_event import falco_event, time_ns
from sandboxd.sink.falco_ring import Ring

_FORMAT: Final = 1  # of the events: `engine_version`, which with Falco counts what its rules may name
# Whoever may fetch may not have the daemon do nothing else: so many calls a second of all, so many requests of one.
_CALL_SECONDS: Final = 0.01
_REQUEST_SECONDS: Final = 0.02
_SEMVER = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?", re.ASCII)
_PRIORITIES = {name: schema_pb2.priority.Value(name) for name in get_args(Priority)}
_UNSET = "<NA>"  # as Falco writes it

Context = grpc.aio.ServicerContext[bytes, bytes]


class Outputs:
    """The handlers. `closing` ends each `sub` once the ring is empty."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._closing = False
        self._door = asyncio.Lock()
        self._clients: set[_Client] = set()

    @property
    def subscribers(self) -> int:
        """Those that have asked and are still there."""
        return sum(client.came for client in self._clients)

    def close(self) -> None:
        self._closing = True
        for client in self._clients:
            client.news.set()

    async def get(self, _request: bytes, context: Context) -> None:
        await self._enter()
        await self._hand_out(context)

    async def sub(self, requests: AsyncIterator[bytes], context: Context) -> None:
        await self._enter()
        client = _Client(requests)
        news = client.news
        self._clients.add(client)
        self._ring.watch(news)
        hearing = asyncio.create_task(client.hear())
        try:
            while True:
                await news.wait()
                news.clear()
                if client.came:
                    await self._hand_out(context)
                if client.done or self._closing:
                    return
        finally:
            self._ring.unwatch(news)
            self._clients.discard(client)
            hearing.cancel()
            await asyncio.wait({hearing})

    async def version(self, _request: bytes, _context: Context) -> bytes:
        await self._enter()
        return _VERSION

    async def _enter(self) -> None:
        async with self._door:
            await asyncio.sleep(_CALL_SECONDS)

    async def _hand_out(self, context: Context) -> None:
        while (event := self._ring.take()) is not None:
            written = False
            try:
                await context.write(event)
                written = True
            finally:
                if not written:
                    self._ring.give_back(event)


class _Client:
    """Hears its requests, whatever is on its way to it meanwhile."""

    def __init__(self, requests: AsyncIterator[bytes]) -> None:
        self._requests = requests
        self.news = asyncio.Event()
        self.came = False
        self.done = False

    async def hear(self) -> None:
        try:
            async for _ in self._requests:
                if not self.came:
                    self.came = True
                    self.news.set()
                await asyncio.sleep(_REQUEST_SECONDS)
        finally:
            self.done = True
            self.news.set()


def handlers(outputs: Outputs) -> tuple[grpc.GenericRpcHandler, ...]:
    """By the very names that clients call."""
    return (
        grpc.method_handlers_generic_handler(
            "falco.outputs.service",
            {
                "get": grpc.unary_stream_rpc_method_handler(outputs.get),
                "sub": grpc.stream_stream_rpc_method_handler(outputs.sub),
            },
        ),
        grpc.method_handlers_generic_handler(
            "falco.version.service", {"version": grpc.unary_unary_rpc_method_handler(outputs.version)}
        ),
    )


def encode(record: Record) -> bytes:
    """The record as an `outputs.response`: the same event as in Falco's JSON, its values as text."""
    made = falco_event(record)
    values, tags = made["output_fields"], made["tags"]
    assert isinstance(values, dict)
    assert isinstance(tags, list)
    response = outputs_pb2.response(
        priority=_PRIORITIES.get(record.priority, schema_pb2.INFORMATIONAL),
        source_deprecated=schema_pb2.INTERNAL,  # the client library 0.4.0 stops at a value that it does not know
        rule=record.rule,
        output=str(made["output"]),
        output_fields={name: _text(value) for name, value in values.items()},
        hostname=record.node,
        tags=tags,
        source=str(made["source"]),
    )
    response.time.seconds, response.time.nanos = divmod(time_ns(record.time), 1_000_000_000)
    return response.SerializeToString()


def _text(value: object) -> str:
    match value:
        case None:
            return _UNSET
        case bool():
            return "true" if value else "false"
        case _:
            return str(value).encode("utf-8", "replace").decode()  # protobuf takes no half of a surrogate pair


def _checksum() -> str:
    """Changes with the name of any event or field."""
    kinds = (kind for kind in vars(event).values() if isinstance(kind, type) and issubclass(kind, event.Event))
    names = sorted((kind.rule, [field.name for field in fields(kind)]) for kind in kinds if kind is not event.Event)
    return hashlib.sha256(repr(names).encode()).hexdigest()


def _version(text: str) -> bytes:
    match = _SEMVER.fullmatch(text)
    major, minor, patch, prerelease, build = match.groups() if match else ("0", "0", "0", "", "")
    return version_pb2.response(
        version=text,
        major=int(major),
        minor=int(minor),
        patch=int(patch),
        prerelease=prerelease or "",
        build=build or "",
        engine_version=_FORMAT,
        engine_fields_checksum=_checksum(),
    ).SerializeToString()


_VERSION = _version(__version__)
