"""The daemon's API: a gRPC server behind the relay that tells who calls, on a socket that only the right ones reach.

Must never answer before it is told to serve, and never outlives `stop`. Started by `daemon` with everything it needs;
it makes nothing by itself.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from sandboxd.approval.office import Approvals
from sandboxd.audit.feed import SinkStatus
from sandboxd.execution import new_id
from sandboxd.lifecycle import Registry
from sandboxd.model import Isolation
from sandboxd.profile.load import ProfileSet
from sandboxd.response.responder import Responder
from sandboxd.rpc.approval import ApprovalService
from sandboxd.rpc.audit import Audit, AuditService
from sandboxd.rpc.health import Health
from sandboxd.rpc.interceptors import Handler, Interceptors, Method, Streaming, Unary
from sandboxd.rpc.listener import Listener
from sandboxd.rpc.node import NodeFacts, NodeService
from sandboxd.rpc.peer import Peers
from sandboxd.rpc.policy import InForce, PolicyService
from sandboxd.rpc.profile import ProfileService
from sandboxd.rpc.relay import Relay
from sandboxd.rpc.response import Responses
from sandboxd.rpc.sandbox import Executes, SandboxService
from sandboxd.runtime.base import Runtime
from sandboxd.voting import Voting

ROOT = 0
_KEEPALIVE_MILLISECONDS = 60_000
_LEAST_PING_MILLISECONDS = 10_000


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`allowed_uids` may call beside the daemon's own uid and root. `run_output_bytes` is Run's cap for each stream."""

    socket: Path
    allowed_uids: tuple[int, ...] = ()
    max_message_bytes: int = 16 * 1024 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_connections: int = 256
    max_calls_per_connection: int = 128
    max_calls: int = 512
    run_output_bytes: int = 1024 * 1024


class Server:
    """A serving server. Made by `serve`."""

    def __init__(
        self,
        listener: Listener,
        relay: Relay,
        grpc_server: grpc.aio.Server,
        health_service: Health,
        interceptors: Interceptors,
    ) -> None:
        self._listener = listener
        self._relay = relay
        self._grpc = grpc_server
        self._health = health_service
        self._interceptors = interceptors

    @property
    def path(self) -> Path:
        return self._listener.path

    @property
    def connections(self) -> int:
        return self._relay.connections

    @property
    def dropped_connections(self) -> int:
        return self._relay.dropped

    @property
    def errors(self) -> Mapping[str, int]:
        """Calls that ended in one, by the name of its status."""
        return self._interceptors.errors

    async def drain(self) -> None:
        """Tell health checks that this node takes no more work. Refusing it is the executor's part. Idempotent."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more, let calls end for that long, then cancel what is left and remove the socket. Idempotent."""
        await self.drain()
        self._relay.close_listener()
        await self._grpc.stop(grace_seconds)
        self._relay.close()
        self._listener.close()


async def serve(
    config: ServerConfig,
    *,
    executor: Executes,
    registry: Registry,
    profiles: Callable[[], ProfileSet],
    runtimes: Mapping[Isolation, Runtime],
    policy: InForce,
    facts: NodeFacts,
    approvals: Approvals,
    voting: Voting,
    responder: Responder,
    reasons: Callable[[], Collection[str]],
    audit: Audit,
    sinks: Callable[[], Sequence[SinkStatus]],
) -> Server:
    """A server that answers from now on, or `ConfigInvalid` if its socket cannot be had.

    `profiles` and `policy` are asked at each call, so a reload shows at once. `reasons` says why no work is taken.
    """
    services = (
        SandboxService(executor, registry, config.max_message_bytes, config.run_output_bytes),
        ProfileService(profiles),
        NodeService(facts, runtimes, lambda: policy.facts().revision, Responses(responder, runtimes, new_id)),
        PolicyService(policy),
        ApprovalService(approvals, voting, new_id),
        AuditService(audit, sinks),
    )
    names = tuple(service.NAME for service in services)
    peers = Peers(frozenset((os.geteuid(), ROOT, *config.allowed_uids)))
    interceptors = Interceptors(peers, config.max_calls)
    health_service = Health(names, reasons)
    grpc_server = grpc.aio.server(options=_options(config), maximum_concurrent_rpcs=config.max_calls)
    for service in services:
        _bind(grpc_server, interceptors, service.NAME, service.methods())
    foreign = cast(grpc.aio.Server, _Guarding(grpc_server, interceptors))
    health_pb2_grpc.add_HealthServicer_to_server(health_service, foreign)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
        reflection.aio.ReflectionServicer((*names, health.SERVICE_NAME, reflection.SERVICE_NAME)), foreign
    )
    listener = Listener(config.socket, open_to_others=bool(config.allowed_uids))
    try:
        grpc_server.add_insecure_port(f"unix:{listener.inner_path}")
        await grpc_server.start()
        await health_service.look()
        relay = Relay(listener.socket, listener.inner_path, peers, config.max_connections)
    except BaseException:
        await grpc_server.stop(None)
        listener.close()
        raise
    return Server(listener, relay, grpc_server, health_service, interceptors)


def _options(config: ServerConfig) -> tuple[tuple[str, int], ...]:
    """Every bound that gRPC keeps for us; what it does not know of is in `scan`, `request` and `relay`."""
    return (
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.max_metadata_size", config.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),
        ("grpc.max_concurrent_streams", config.max_calls_per_connection),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MILLISECONDS),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", 0),
    )


def _bind(server: grpc.aio.Server, interceptors: Interceptors, service: str, methods: Mapping[str, Method]) -> None:
    handlers: dict[str, Handler] = {}
    for name, spec in methods.items():
        path = f"/{service}/{name}"
        match spec:
            case Unary():
                handlers[name] = interceptors.unary(path, spec)
            case Streaming():
                handlers[name] = interceptors.streaming(path, spec)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


class _Guarding:
    """Stands in for a server where a library adds its service, so that its methods know their callers as ours do."""

    def __init__(self, server: grpc.aio.Server, interceptors: Interceptors) -> None:
        self._server = server
        self._interceptors = interceptors

    def add_generic_rpc_handlers(self, _handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """The same methods come by name below."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        guarded = {
            name: self._interceptors.guarded(f"/{service}/{name}", handler) for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))
