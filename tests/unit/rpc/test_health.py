"""grpc.health.v1 as a client sees it, over a real channel."""

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sandboxd.rpc import health
from tests.unit.rpc.conftest import Served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICES = ["", "sandboxd.v1.SandboxService", "sandboxd.v1.PolicyService"]


def asked(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", SERVICES)
async def test_check_says_what_is_so_now(served: Served, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    assert (await stub.Check(asked(service))).status == SERVING
    served.reasons.append("journal_unavailable")
    assert (await stub.Check(asked(service))).status == NOT_SERVING
    served.reasons.clear()
    assert (await stub.Check(asked(service))).status == SERVING


async def test_who_watches_learns_of_both_ways(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    watched, other = aiter(stub.Watch(asked(""))), aiter(stub.Watch(asked("no.such.Service")))
    assert ((await anext(watched)).status, (await anext(other)).status) == (SERVING, UNKNOWN)
    served.reasons.append("policy_unavailable")
    assert (await asyncio.wait_for(anext(watched), 60)).status == NOT_SERVING
    served.reasons.clear()
    assert (await asyncio.wait_for(anext(watched), 60)).status == SERVING


async def test_nobody_looks_when_nobody_watches(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    before = len(asyncio.all_tasks())
    calls = [stub.Watch(asked("")) for _ in range(3)]
    for call in calls:
        await anext(aiter(call))
    assert len(asyncio.all_tasks()) > before
    for call in calls:
        call.cancel()
    async with asyncio.timeout(60):
        while any("_keep_looking" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def test_a_node_that_drained_does_not_serve_again(served: Served) -> None:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    await served.server.drain()
    assert (await stub.Check(asked(""))).status == NOT_SERVING
