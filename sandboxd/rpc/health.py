"""grpc.health.v1: says of every service what `readiness` says of the node, to who asks and to who watches.

Never answers from memory: each Check looks anew, and while anybody watches it is looked at each second. Made by
`server`.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2

from sandboxd.rpc.interceptors import Context

LOOK_SECONDS = 1.0
_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
Request = health_pb2.HealthCheckRequest


class Health(health.aio.HealthServicer):
    """`reasons` says why no work is taken, and nothing if it is."""

    def __init__(self, services: Sequence[str], reasons: Callable[[], Collection[str]]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._reasons = reasons
        self._told: object = None
        self._watchers = 0
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        status = _NOT_SERVING if self._reasons() else _SERVING
        if status == self._told:
            return
        self._told = status
        for service in self._services:
            await self.set(service, status)

    async def Check(self, request: Request, context: Context) -> Any:
        await self.look()
        return await super().Check(request, context)

    async def Watch(self, request: Request, context: Context) -> None:
        await self.look()
        self._watchers += 1
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._keep_looking())
        try:
            await super().Watch(request, context)
        finally:
            self._watchers -= 1
            if not self._watchers and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()
