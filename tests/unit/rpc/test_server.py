"""The server as a whole: who reaches it, health and reflection, and how it stops."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sandboxd.errors import ConfigInvalid
from sandboxd.model import Caller, ExecuteRequest
from sandboxd.rpc.audit import AuditService
from sandboxd.rpc.interceptors import Streaming
from sandboxd.rpc.node import NodeService
from sandboxd.rpc.policy import PolicyService
from sandboxd.rpc.profile import ProfileService
from sandboxd.rpc.response import Responses
from sandboxd.rpc.sandbox import SandboxService
from sandboxd.rpc.server import ServerConfig
from sandboxd.rpc.v1 import audit_pb2, node_pb2, policy_pb2, profile_pb2, sandbox_pb2
from tests.fakes.executor import Item, endless, greeting
from tests.skips import need_root
from tests.unit.rpc.conftest import Served, raw, serving

REQUEST = sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["true"]))
STRANGER = 4242
GUEST = 4243
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

CALL = """
import sys, grpc
channel = grpc.insecure_channel("unix:" + sys.argv[1])
for method in sys.argv[2:]:
    try:
        channel.unary_unary(method)(b"", timeout=10)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
"""
CAPABILITIES = "/sandboxd.v1.NodeService/GetCapabilities"
HEALTH = "/grpc.health.v1.Health/Check"


async def call_as(uid: int, path: Path, *methods: str) -> list[str]:
    """What each method answers to a process of that user."""
    finished = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CALL, str(path), *methods],
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=(),
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd="/",
        timeout=60,
        text=True,
    )
    return finished.stdout.split()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A place that every user can reach, as /run is."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_every_method_of_the_api_is_bound_with_its_request_and_kind() -> None:
    nothing: Any = None
    services = (
        (SandboxService(nothing, nothing, 0, 0), sandbox_pb2.DESCRIPTOR),
        (ProfileService(nothing), profile_pb2.DESCRIPTOR),
        (NodeService(nothing, nothing, nothing, Responses(nothing, nothing, nothing)), node_pb2.DESCRIPTOR),
        (PolicyService(nothing), policy_pb2.DESCRIPTOR),
        (AuditService(nothing, nothing), audit_pb2.DESCRIPTOR),
    )
    for service, file in services:
        (described,) = file.services_by_name.values()
        bound = service.methods()
        assert described.full_name == service.NAME
        assert set(bound) == set(described.methods_by_name)
        for name, method in described.methods_by_name.items():
            assert bound[name].request.DESCRIPTOR is method.input_type
            assert isinstance(bound[name], Streaming) == method.server_streaming


@pytest.mark.root
async def test_other_users_cannot_even_reach_the_socket(public_directory: Path) -> None:
    need_root()
    async with serving(ServerConfig(socket=public_directory / "run" / "s")) as served:
        assert await call_as(0, served.path, CAPABILITIES) == ["OK"]  # the control
        assert await call_as(STRANGER, served.path, CAPABILITIES) == ["UNAVAILABLE"]
        assert served.server.connections == 0


@pytest.mark.root
async def test_guest_may_call_and_a_stranger_is_told_that_he_may_not(public_directory: Path) -> None:
    need_root()
    async with serving(ServerConfig(socket=public_directory / "run" / "s", allowed_uids=(GUEST,))) as served:
        methods = (CAPABILITIES, HEALTH)
        assert await call_as(GUEST, served.path, *methods) == ["OK", "OK"]
        assert await call_as(STRANGER, served.path, *methods) == ["PERMISSION_DENIED", "PERMISSION_DENIED"]


@pytest.mark.root
async def test_inner_socket_is_out_of_reach_for_a_guest(public_directory: Path) -> None:
    need_root()
    async with serving(ServerConfig(socket=public_directory / "run" / "s", allowed_uids=(GUEST,))) as served:
        assert await call_as(GUEST, served.path.parent / "inner" / "grpc", CAPABILITIES) == ["UNAVAILABLE"]


async def test_connection_past_the_relay_is_refused(served: Served) -> None:
    """Even our own user, who can reach the inner socket, has no name there."""
    inner = served.path.parent / "inner" / "grpc"
    async with grpc.aio.insecure_channel(f"unix:{inner}") as channel:
        for method in (CAPABILITIES, HEALTH):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(channel, method, b"")
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_second_server_on_the_socket_is_refused(served: Served) -> None:
    with pytest.raises(ConfigInvalid, match="another daemon"):
        async with serving(ServerConfig(socket=served.path)):
            pass
    await served.sandbox.Run(REQUEST)


@pytest.mark.parametrize("service", ["", "sandboxd.v1.SandboxService", "sandboxd.v1.NodeService"])
async def test_health_is_serving_until_the_node_drains(served: Served, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    watched = aiter(stub.Watch(request))
    assert (await stub.Check(request)).status == SERVING
    assert (await anext(watched)).status == SERVING
    await served.server.drain()
    await served.server.drain()
    assert (await stub.Check(request)).status == NOT_SERVING
    assert (await asyncio.wait_for(anext(watched), 5)).status == NOT_SERVING


async def test_reflection_names_every_service_and_finds_its_schema(served: Served) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(grpc.Channel, served.channel))
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="sandboxd.v1.SandboxService"),
    ]
    listed, found = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {f"sandboxd.v1.{name}Service" for name in ("Sandbox", "Profile", "Node")} < names
    assert found.file_descriptor_response.file_descriptor_proto


async def test_stop_waits_for_calls_within_its_grace(served: Served) -> None:
    go_on = asyncio.Event()
    script = served.executor.script

    async def wait(request: ExecuteRequest, caller: Caller) -> AsyncGenerator[Item, None]:
        await go_on.wait()
        async for item in script(request, caller):
            yield item

    served.executor.script = wait
    call = asyncio.ensure_future(_run(served))
    while not served.executor.requests:
        await asyncio.sleep(0.01)
    stopping = asyncio.ensure_future(served.server.stop(30))
    await asyncio.sleep(0)
    go_on.set()
    assert (await call).stdout == b"hello\n"
    await asyncio.wait_for(stopping, 10)


async def _run(served: Served) -> sandbox_pb2.RunResponse:
    return await served.sandbox.Run(REQUEST)


async def test_stop_ends_what_outlasts_its_grace_and_leaves_no_socket(served: Served) -> None:
    served.executor.script = endless
    call = served.sandbox.Execute(REQUEST)
    await anext(aiter(call))
    await asyncio.wait_for(served.server.stop(0.05), 10)
    await asyncio.wait_for(served.executor.ended.wait(), 5)
    assert [path.name for path in served.path.parent.iterdir()] == ["sandboxd.sock.lock"]
    await served.server.stop(0)


async def test_place_of_a_call_is_free_again_however_it_ended(config: ServerConfig) -> None:
    async with serving(replace(config, max_calls=2)) as served:
        for _ in range(3):
            await _run(served)
            served.executor.script = endless
            call = served.sandbox.Execute(REQUEST)
            await anext(aiter(call))
            call.cancel()
            await asyncio.wait_for(served.executor.ended.wait(), 5)
            served.executor.ended.clear()
            served.executor.script = greeting
            with pytest.raises(grpc.aio.AioRpcError):
                await served.sandbox.Run(sandbox_pb2.ExecuteRequest())


async def test_calls_beyond_the_cap_are_refused(config: ServerConfig) -> None:
    async with serving(replace(config, max_calls=2)) as served:
        served.executor.script = endless
        calls = [served.sandbox.Execute(REQUEST) for _ in range(2)]
        for call in calls:
            await anext(aiter(call))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.sandbox.Run(REQUEST)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
