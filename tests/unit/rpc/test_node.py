"""NodeService tells what the node is and what it can enforce."""

from sandboxd.rpc.v1 import enforcement_pb2, node_pb2
from tests.unit.rpc.conftest import CAPABILITIES, Served


async def test_capabilities_are_told(served: Served) -> None:
    answer = await served.node.GetCapabilities(node_pb2.GetCapabilitiesRequest())
    assert (answer.version, answer.node, answer.kernel, answer.mode) == ("1.2.3", "here", "6.1.0", "rootless-single")
    assert answer.api_versions == ["v1"]
    assert answer.policy_revision == "r1"
    (runtime,) = answer.runtimes
    assert runtime.isolation == enforcement_pb2.ISOLATION_PROCESS
    assert [row.guarantee for row in runtime.rows] == [row.guarantee.value for row in CAPABILITIES.rows]
