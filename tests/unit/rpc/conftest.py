"""A real server on a real unix socket with a fake executor behind it, and a real channel to it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import grpc
import pytest

from sandboxd.audit.feed import SinkStatus
from sandboxd.audit.reader import AuditReader
from sandboxd.audit.recorder import Recorder
from sandboxd.gate import Gate
from sandboxd.lifecycle import Registry
from sandboxd.model import Decision, Guarantee, Isolation, Limits, RuntimeCapabilities, Verdict
from sandboxd.policy.rego_rules import Rule
from sandboxd.profile.load import ProfileSet
from sandboxd.profile.resolve import Interpreter, ResolvedProfile
from sandboxd.profile.schema import Spec
from sandboxd.response.quarantine import Quarantines
from sandboxd.response.responder import Responder
from sandboxd.rollout import PolicyFacts
from sandboxd.rpc.node import NodeFacts
from sandboxd.rpc.server import Server, ServerConfig, serve
from sandboxd.rpc.v1 import (
    approval_pb2_grpc,
    audit_pb2_grpc,
    node_pb2_grpc,
    policy_pb2_grpc,
    profile_pb2_grpc,
    sandbox_pb2_grpc,
)
from sandboxd.runtime.base import Runtime
from sandboxd.voting import Voting
from tests.fakes.approvals import Office
from tests.fakes.executor import REPORT, FakeExecutor
from tests.fakes.policy import FakeEngine

# What a careful client would not send must be refused by the server, so the client here is not careful.
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
FACTS = NodeFacts(version="1.2.3", node="here", kernel="6.1.0", mode="rootless-single")
CAPABILITIES = RuntimeCapabilities(Isolation.PROCESS, "rootless-single", REPORT.rows)


LIMITS = Limits(
    wall_seconds=60.0,
    idle_seconds=0.0,
    cpu_seconds=30.0,
    cpus=1.0,
    memory_bytes=1 << 28,
    pids=64,
    open_files=256,
    file_size_bytes=1 << 26,
    workspace_bytes=1 << 26,
    workspace_inodes=4096,
    tmp_bytes=1 << 24,
    tmp_inodes=1024,
    stdout_bytes=1 << 20,
    stderr_bytes=1 << 19,
    output_bytes=1 << 24,
    output_files_bytes=1 << 22,
    output_files=32,
    io_read_bytes_per_second=0,
    io_write_bytes_per_second=1 << 23,
)
PROFILE = ResolvedProfile(
    name="python",
    description="runs Python",
    digest="cd" * 32,
    isolation=Isolation.PROCESS,
    limits=LIMITS,
    network="none",
    env=(("HOME", "/workspace"),),
    env_allowed=("APP_*",),
    cwd="/workspace",
    interpreters=(Interpreter("python", ("python3", "{file}"), "main.py"),),
    enforcement=((Guarantee.NETWORK_NONE, "require"), (Guarantee.LIMIT_IO, "best_effort")),
    labels=(("tier", "low"),),
    warnings=("its workspace may execute",),
    spec_json='{"network":"none"}',
    spec=Spec.model_construct(),
)
PROFILES = ProfileSet({"python": PROFILE, "default": replace(PROFILE, name="default")})


class PolicyInForce:
    """A policy that says what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.told = PolicyFacts("fake", "r1", 7, (("p.rego", "ab" * 32),), 1_700_000_000.5, "", 0.0, None)
        self.decision = Decision(Verdict.ALLOW, (), "r1")
        self.rules: tuple[Rule, ...] = ()
        self.asked: list[bytes] = []

    def facts(self) -> PolicyFacts:
        return self.told

    async def explain(self, document: bytes) -> tuple[Decision, tuple[Rule, ...]]:
        self.asked.append(document)
        return self.decision, self.rules


class ProbedRuntime:
    """A runtime of which only the probe is asked."""

    isolation = Isolation.PROCESS

    def probe(self) -> RuntimeCapabilities:
        return CAPABILITIES


@dataclass(frozen=True, slots=True)
class Audited:
    """A journal that only the test writes, and what is told of sinks."""

    recorder: Recorder
    reader: AuditReader
    sinks: list[SinkStatus]


@dataclass
class Served:
    """The server, what stands behind it, and a channel."""

    path: Path
    server: Server
    executor: FakeExecutor
    registry: Registry
    office: Office
    engine: FakeEngine
    policy: PolicyInForce
    channel: grpc.aio.Channel
    reasons: list[str]  # why no work is taken
    audit: Audited

    @property
    def audits(self) -> "audit_pb2_grpc.AuditServiceAsyncStub":
        return audit_pb2_grpc.AuditServiceStub(self.channel)

    @property
    def approval(self) -> "approval_pb2_grpc.ApprovalServiceAsyncStub":
        return approval_pb2_grpc.ApprovalServiceStub(self.channel)

    @property
    def policies(self) -> "policy_pb2_grpc.PolicyServiceAsyncStub":
        return policy_pb2_grpc.PolicyServiceStub(self.channel)

    @property
    def sandbox(self) -> "sandbox_pb2_grpc.SandboxServiceAsyncStub":
        return sandbox_pb2_grpc.SandboxServiceStub(self.channel)

    @property
    def profile(self) -> "profile_pb2_grpc.ProfileServiceAsyncStub":
        return profile_pb2_grpc.ProfileServiceStub(self.channel)

    @property
    def node(self) -> "node_pb2_grpc.NodeServiceAsyncStub":
        return node_pb2_grpc.NodeServiceStub(self.channel)


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """Overridden by a test that wants other bounds."""
    return ServerConfig(socket=tmp_path / "run" / "sandboxd.sock")


async def raw(channel: grpc.aio.Channel, method: str, data: bytes, *metadata: tuple[str, str]) -> bytes:
    """The bytes that a method answers to these bytes, whatever they are."""
    call: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
    return await call(data, metadata=metadata)


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncIterator[Served]:
    executor = FakeExecutor()
    registry = Registry(max_ended=10, max_bytes=1 << 20, now=lambda: 1_700_000_000.25)
    office = Office(config.socket.parent.parent / "approvals")
    engine = FakeEngine()
    policy = PolicyInForce()
    gate = Gate(engine, approvals=office.approvals)
    reasons: list[str] = []
    state = Path(tempfile.mkdtemp(dir=config.socket.parent.parent))  # a second server has a journal of its own
    recorder = Recorder.open(state, "here", "boot", "write", segment_bytes=20_000)
    reader = AuditReader(recorder, state)
    sinks: list[SinkStatus] = []
    reading = asyncio.create_task(reader.run())
    server = await serve(
        config,
        executor=executor,
        registry=registry,
        profiles=lambda: PROFILES,
        runtimes={Isolation.PROCESS: cast(Runtime, ProbedRuntime())},
        policy=policy,
        facts=FACTS,
        approvals=office.approvals,
        voting=Voting(gate, office.approvals, office.record),
        responder=Responder(gate, registry, Quarantines(state), office.record, lambda: 1_700_000_000.25),
        reasons=lambda: reasons,
        audit=reader,
        sinks=lambda: sinks,
    )
    audit = Audited(recorder, reader, sinks)
    try:
        async with grpc.aio.insecure_channel(f"unix:{config.socket}", options=OPTIONS) as channel:
            yield Served(config.socket, server, executor, registry, office, engine, policy, channel, reasons, audit)
    finally:
        await server.stop(0)
        reading.cancel()
        await asyncio.wait([reading])
        await recorder.close()


@pytest.fixture
async def served(config: ServerConfig) -> AsyncIterator[Served]:
    async with serving(config) as whole:
        yield whole
