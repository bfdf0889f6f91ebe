"""The requests beside Execute, one field each, down to the answers of the services over a registry of two."""

import asyncio
from collections.abc import AsyncGenerator

from google.protobuf.message import Message

from bench.soak import protobuf
from bench.soak.target import Shape, Target
from sandboxd.errors import InvalidRequest, NotFound
from sandboxd.lifecycle import ExecutionRecord, Registry
from sandboxd.model import Accepted, Caller, Chunk, EndReason, ExecuteRequest, Outcome, Stream
from sandboxd.rpc.interceptors import Call, Streaming, parse
from sandboxd.rpc.profile import ProfileService
from sandboxd.rpc.sandbox import SandboxService
from sandboxd.rpc.v1 import profile_pb2, sandbox_pb2

CALLER = Caller("local", "uid:0", (), "fuzz")
NAMES = ("GetExecution", "ListExecutions", "GetLogs", "KillExecution", "ListProfiles", "GetProfile")
EXECUTE = ("sandbox.SandboxService._execute", "sandbox.SandboxService._run")
MAKING = (
    "profile.ProfileService.__init__",
    "profile.ProfileService.methods",
    "sandbox.SandboxService.__init__",
    "sandbox.SandboxService.methods",
)


class _Executes:
    """Nothing of this target executes."""

    def execute(self, request: ExecuteRequest, caller: Caller) -> AsyncGenerator[Accepted | Chunk | Outcome, None]:
        raise AssertionError("no call of this target executes anything")


class _Running:
    suspension = None

    def end(self, reason: EndReason) -> None:
        pass

    async def signal(self, signum: int) -> None:
        if not 0 < signum <= 64:
            raise AssertionError(f"signal {signum} was let through")


def target() -> Target:
    from bench.soak.targets.request import profiles

    registry = Registry(4, 1 << 20, lambda: 1.5)
    for name in ("a", "b"):
        registry.add(ExecutionRecord(name, "s", "local", "uid:0", "python", "x", ()), _Running())
        registry.keep(name, Chunk(Stream.STDOUT, 0, b"out"))
    services = (SandboxService(_Executes(), registry, 1 << 22, 1 << 20), ProfileService(profiles))
    methods = {name: method for service in services for name, method in service.methods().items()}
    loop = asyncio.new_event_loop()

    async def ask(name: str, data: bytes) -> object:
        method = methods[name]
        message = parse(method.request, data)
        call = Call(CALLER, "")
        answers: list[Message]
        if isinstance(method, Streaming):
            answers = [answer async for answer in method.answers(message, call)]
        else:
            answers = [await method.answer(message, call)]
        for answer in answers:
            answer.SerializeToString()
        return [str(value).rpartition("/")[2] for _, value in message.ListFields()]  # what was asked, and answered

    def run(data: bytes) -> object:
        found = protobuf.fields(data) or []
        return [
            loop.run_until_complete(ask(NAMES[field.number - 1], field.payload))
            for field in found[:4]
            if field.number <= len(NAMES)
        ]

    seeds = tuple(
        protobuf.Field(number, 2, message.SerializeToString()).encoded()
        for number, message in (
            (1, sandbox_pb2.GetExecutionRequest(execution_id="a")),
            (2, sandbox_pb2.ListExecutionsRequest(living_only=True, page_size=1, page_token="1.5/some-execution")),
            (3, sandbox_pb2.GetLogsRequest(execution_id="b")),
            (4, sandbox_pb2.KillExecutionRequest(execution_id="a", signal=15)),
            (5, profile_pb2.ListProfilesRequest()),
            (6, profile_pb2.GetProfileRequest(name="python")),
        )
    )
    words = (b"1.5/a", b"nan/a", b"1e999/", b"\xff", b"a", b"strict")
    modules = ("sandboxd.rpc.sandbox", "sandboxd.rpc.profile", "sandboxd.rpc.scan")
    return Target(
        "calls", modules, run, (InvalidRequest, NotFound), seeds, words, Shape.PROTOBUF, outside=(*EXECUTE, *MAKING)
    )
