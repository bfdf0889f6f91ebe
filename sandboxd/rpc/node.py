"""NodeService: what this node is and what it can enforce; what operators do on it is in `response`.

Tells nothing about any tenant. Bound to gRPC by `server`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandboxd.model import Isolation
from sandboxd.rpc import convert
from sandboxd.rpc.interceptors import Call, Method, Unary
from sandboxd.rpc.response import Responses
from sandboxd.rpc.v1 import node_pb2
from sandboxd.runtime.base import Runtime

API_VERSIONS = ("v1",)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What does not change while the daemon lives. `mode` is root, rootless-subuid or rootless-single."""

    version: str
    node: str
    kernel: str
    mode: str


class NodeService:
    NAME = node_pb2.DESCRIPTOR.services_by_name["NodeService"].full_name

    def __init__(
        self,
        facts: NodeFacts,
        runtimes: Mapping[Isolation, Runtime],
        policy_revision: Callable[[], str],
        responses: Responses,
    ) -> None:
        self._responses = responses
        self._facts = facts
        self._runtimes = runtimes
        self._policy_revision = policy_revision

    def methods(self) -> dict[str, Method]:
        own = {"GetCapabilities": Unary(node_pb2.GetCapabilitiesRequest, self._capabilities)}
        return {**own, **self._responses.methods()}

    async def _capabilities(
        self, _message: node_pb2.GetCapabilitiesRequest, _call: Call
    ) -> node_pb2.GetCapabilitiesResponse:
        return node_pb2.GetCapabilitiesResponse(
            version=self._facts.version,
            api_versions=API_VERSIONS,
            node=convert.text(self._facts.node),
            kernel=convert.text(self._facts.kernel),
            mode=self._facts.mode,
            policy_revision=convert.text(self._policy_revision()),
            runtimes=[convert.capabilities(runtime.probe()) for runtime in self._runtimes.values()],
        )
