import pytest
from google.protobuf.message import Message

from sandboxd.client import question
from sandboxd.client.audit import AuditFilter
from sandboxd.client.errors import InvalidRequest
from sandboxd.rpc.v1 import approval_pb2, audit_pb2, node_pb2, policy_pb2, profile_pb2, sandbox_pb2

ASKED = [
    question.capabilities(),
    question.profiles(),
    question.profile("p"),
    question.policy(),
    question.check_policy("{}"),
    question.executions(living_only=True, page_token="t"),
    question.execution("e"),
    question.logs("e"),
    question.kill("e", 9),
    question.approvals(approval_id="a", pending_only=True, page_token="t"),
    question.approve("a", "c"),
    question.deny("a", "c"),
    question.query_audit(AuditFilter(), limit=1, oldest_first=True, page_token="t"),
    question.verify_audit(),
    question.audit_sinks(),
    question.audit_key(),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.method)
def test_method_and_messages_are_those_of_the_api(
    asked: question.Question[Message, object] | question.StreamQuestion[Message, object],
) -> None:
    _, service, name = asked.method.split("/")
    package = {
        "ApprovalService": approval_pb2,
        "AuditService": audit_pb2,
        "NodeService": node_pb2,
        "PolicyService": policy_pb2,
        "ProfileService": profile_pb2,
        "SandboxService": sandbox_pb2,
    }
    method = (
        package[service.removeprefix("sandboxd.v1.")].DESCRIPTOR.services_by_name[service[12:]].methods_by_name[name]
    )
    assert method.input_type is asked.request.DESCRIPTOR
    assert method.output_type is asked.answer.DESCRIPTOR
    assert method.server_streaming is isinstance(asked, question.StreamQuestion)


def test_what_streams_on_is_of_the_api_too() -> None:
    service = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
    assert f"/{service.full_name}/{service.methods_by_name['Execute'].name}" == question.EXECUTE
    service = approval_pb2.DESCRIPTOR.services_by_name["ApprovalService"]
    assert f"/{service.full_name}/{service.methods_by_name['Watch'].name}" == question.WATCH_APPROVALS
    service = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]
    assert f"/{service.full_name}/{service.methods_by_name['Tail'].name}" == question.TAIL_AUDIT
    assert isinstance(question.tail_audit(AuditFilter(), 5), audit_pb2.AuditServiceTailRequest)


def test_a_page_is_never_asked_for_larger_than_the_api_has_them() -> None:
    asked = question.query_audit(AuditFilter(), limit=10**9, oldest_first=False, page_token="").request
    assert isinstance(asked, audit_pb2.AuditServiceQueryRequest) and asked.page_size == 1000
    with pytest.raises(InvalidRequest, match="limit 0 is no number of records"):
        question.query_audit(AuditFilter(), limit=0, oldest_first=False, page_token="")


def test_verification_may_take_longer_than_the_rest() -> None:
    assert question.verify_audit().seconds == question.VERIFY_SECONDS > question.audit_key().seconds


def test_page_comes_with_the_token_of_the_next() -> None:
    asked = question.executions(living_only=False, page_token="")
    assert asked.value(sandbox_pb2.ListExecutionsResponse(next_page_token="n")) == ((), "n")
