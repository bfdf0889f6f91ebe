"""Every call but those that stream on, as data: its method, its request, and how its answer is read. No I/O.

Both clients put the same questions; they differ only in how they wait for the answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from sandboxd.client import audit_convert, convert
from sandboxd.client.approval import Approval
from sandboxd.client.audit import AuditFilter, AuditKey, AuditPage, AuditSink, AuditVerification
from sandboxd.client.errors import InvalidRequest
from sandboxd.client.node import Capabilities, Execution, Logs, Profile
from sandboxd.client.policy import Policy, PolicyCheck
from sandboxd.client.response import ExecutionEffect, Measure, Quarantine, Target
from sandboxd.client.stream import Output
from sandboxd.rpc.v1 import approval_pb2, audit_pb2, node_pb2, policy_pb2, profile_pb2, sandbox_pb2

SECONDS = 30.0  # deadline of these calls where none is told; none of them waits for a program
EXECUTE = "/sandboxd.v1.SandboxService/Execute"
WATCH_APPROVALS = "/sandboxd.v1.ApprovalService/Watch"
EXAMINE = "/sandboxd.v1.NodeService/Examine"
TAIL_AUDIT = "/sandboxd.v1.AuditService/Tail"
MOST_AUDIT_RECORDS = 1000  # of one page
VERIFY_SECONDS = 3600.0  # a journal may be large

AnswerT = TypeVar("AnswerT", bound=Message)
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Question(Generic[AnswerT, ValueT]):
    """One unary call. `value` turns its answer into what the caller gets."""

    method: str
    request: Message
    answer: type[AnswerT]
    value: Callable[[AnswerT], ValueT]
    seconds: float = SECONDS


@dataclass(frozen=True, slots=True)
class StreamQuestion(Generic[AnswerT, ValueT]):
    """One call whose answer is a stream that is gathered to its end."""

    method: str
    request: Message
    answer: type[AnswerT]
    value: Callable[[Iterable[AnswerT]], ValueT]


def capabilities() -> Question[node_pb2.GetCapabilitiesResponse, Capabilities]:
    return Question(
        "/sandboxd.v1.NodeService/GetCapabilities",
        node_pb2.GetCapabilitiesRequest(),
        node_pb2.GetCapabilitiesResponse,
        convert.capabilities,
    )


def profiles() -> Question[profile_pb2.ListProfilesResponse, tuple[Profile, ...]]:
    return Question(
        "/sandboxd.v1.ProfileService/ListProfiles",
        profile_pb2.ListProfilesRequest(),
        profile_pb2.ListProfilesResponse,
        lambda answer: tuple(convert.profile(profile) for profile in answer.profiles),
    )


def profile(name: str) -> Question[profile_pb2.GetProfileResponse, Profile]:
    return Question(
        "/sandboxd.v1.ProfileService/GetProfile",
        profile_pb2.GetProfileRequest(name=name),
        profile_pb2.GetProfileResponse,
        lambda answer: convert.profile(answer.profile),
    )


def policy() -> Question[policy_pb2.GetPolicyResponse, Policy]:
    return Question(
        "/sandboxd.v1.PolicyService/GetPolicy",
        policy_pb2.GetPolicyRequest(),
        policy_pb2.GetPolicyResponse,
        lambda answer: convert.policy(answer.policy),
    )


def check_policy(input_json: str) -> Question[policy_pb2.CheckPolicyResponse, PolicyCheck]:
    return Question(
        "/sandboxd.v1.PolicyService/CheckPolicy",
        policy_pb2.CheckPolicyRequest(input_json=input_json),
        policy_pb2.CheckPolicyResponse,
        convert.policy_check,
    )


def executions(
    *, living_only: bool, page_token: str
) -> Question[sandbox_pb2.ListExecutionsResponse, tuple[tuple[Execution, ...], str]]:
    """One page and the token of the next, which is empty at the end."""
    return Question(
        "/sandboxd.v1.SandboxService/ListExecutions",
        sandbox_pb2.ListExecutionsRequest(living_only=living_only, page_token=page_token),
        sandbox_pb2.ListExecutionsResponse,
        lambda answer: (tuple(convert.execution(e) for e in answer.executions), answer.next_page_token),
    )


def execution(execution_id: str) -> Question[sandbox_pb2.GetExecutionResponse, Execution]:
    return Question(
        "/sandboxd.v1.SandboxService/GetExecution",
        sandbox_pb2.GetExecutionRequest(execution_id=execution_id),
        sandbox_pb2.GetExecutionResponse,
        lambda answer: convert.execution(answer.execution),
    )


def logs(execution_id: str) -> StreamQuestion[sandbox_pb2.GetLogsResponse, Logs]:
    return StreamQuestion(
        "/sandboxd.v1.SandboxService/GetLogs",
        sandbox_pb2.GetLogsRequest(execution_id=execution_id),
        sandbox_pb2.GetLogsResponse,
        _logs,
    )


def kill(execution_id: str, signum: int | None) -> Question[sandbox_pb2.KillExecutionResponse, None]:
    return Question(
        "/sandboxd.v1.SandboxService/KillExecution",
        sandbox_pb2.KillExecutionRequest(execution_id=execution_id, signal=signum),
        sandbox_pb2.KillExecutionResponse,
        lambda answer: None,
    )


def approvals(
    *, approval_id: str, pending_only: bool, page_token: str
) -> Question[approval_pb2.ApprovalServiceListResponse, tuple[tuple[Approval, ...], str]]:
    """One page and the token of the next, which is empty at the end."""
    return Question(
        "/sandboxd.v1.ApprovalService/List",
        approval_pb2.ApprovalServiceListRequest(
            approval_id=approval_id, pending_only=pending_only, page_token=page_token
        ),
        approval_pb2.ApprovalServiceListResponse,
        lambda answer: (tuple(convert.approval(a) for a in answer.approvals), answer.next_page_token),
    )


def approve(approval_id: str, comment: str) -> Question[approval_pb2.ApprovalServiceApproveResponse, Approval]:
    return Question(
        "/sandboxd.v1.ApprovalService/Approve",
        approval_pb2.ApprovalServiceApproveRequest(approval_id=approval_id, comment=comment),
        approval_pb2.ApprovalServiceApproveResponse,
        lambda answer: convert.approval(answer.approval),
    )


def deny(approval_id: str, comment: str) -> Question[approval_pb2.ApprovalServiceDenyResponse, Approval]:
    return Question(
        "/sandboxd.v1.ApprovalService/Deny",
        approval_pb2.ApprovalServiceDenyRequest(approval_id=approval_id, comment=comment),
        approval_pb2.ApprovalServiceDenyResponse,
        lambda answer: convert.approval(answer.approval),
    )


def query_audit(
    wanted: AuditFilter, *, limit: int, oldest_first: bool, page_token: str
) -> Question[audit_pb2.AuditServiceQueryResponse, AuditPage]:
    if limit < 1:
        raise InvalidRequest(f"limit {limit} is no number of records; ask for one or more")
    return Question(
        "/sandboxd.v1.AuditService/Query",
        audit_pb2.AuditServiceQueryRequest(
            filter=audit_convert.filter_message(wanted),
            oldest_first=oldest_first,
            page_size=min(limit, MOST_AUDIT_RECORDS),
            page_token=page_token,
        ),
        audit_pb2.AuditServiceQueryResponse,
        audit_convert.page,
    )


def tail_audit(wanted: AuditFilter, from_seq: int | None) -> audit_pb2.AuditServiceTailRequest:
    return audit_pb2.AuditServiceTailRequest(filter=audit_convert.filter_message(wanted), from_seq=from_seq)


def verify_audit() -> Question[audit_pb2.AuditServiceVerifyResponse, AuditVerification]:
    return Question(
        "/sandboxd.v1.AuditService/Verify",
        audit_pb2.AuditServiceVerifyRequest(),
        audit_pb2.AuditServiceVerifyResponse,
        audit_convert.verification,
        VERIFY_SECONDS,
    )


def audit_sinks() -> Question[audit_pb2.AuditServiceListSinksResponse, tuple[AuditSink, ...]]:
    return Question(
        "/sandboxd.v1.AuditService/ListSinks",
        audit_pb2.AuditServiceListSinksRequest(),
        audit_pb2.AuditServiceListSinksResponse,
        audit_convert.sinks,
    )


def audit_key() -> Question[audit_pb2.AuditServiceGetKeyResponse, AuditKey]:
    return Question(
        "/sandboxd.v1.AuditService/GetKey",
        audit_pb2.AuditServiceGetKeyRequest(),
        audit_pb2.AuditServiceGetKeyResponse,
        audit_convert.key,
    )


def respond(
    measure: Measure, target: Target, comment: str
) -> Question[node_pb2.RespondResponse, tuple[ExecutionEffect, ...]]:
    request = node_pb2.RespondRequest(
        measure=node_pb2.Measure.Value(f"MEASURE_{measure.name}"), target=_target(target), comment=comment
    )
    return Question(
        "/sandboxd.v1.NodeService/Respond",
        request,
        node_pb2.RespondResponse,
        lambda answer: tuple(convert.effect(effect) for effect in answer.effects),
    )


def quarantines() -> Question[node_pb2.ListQuarantinesResponse, tuple[Quarantine, ...]]:
    return Question(
        "/sandboxd.v1.NodeService/ListQuarantines",
        node_pb2.ListQuarantinesRequest(),
        node_pb2.ListQuarantinesResponse,
        lambda answer: tuple(convert.quarantine(one) for one in answer.quarantines),
    )


def examine(target: Target, workspace_bytes: int) -> node_pb2.ExamineRequest:
    return node_pb2.ExamineRequest(target=_target(target), workspace_bytes=workspace_bytes)


def _target(target: Target) -> node_pb2.ResponseTarget:
    """As many as are set: the node takes no other than one."""
    named = {name: value for name, value in asdict(target).items() if value}
    if len(named) != 1:
        raise InvalidRequest(f"{len(named)} targets are named; name one", reason="invalid_request")
    return node_pb2.ResponseTarget(**named)


def _logs(answers: Iterable[sandbox_pb2.GetLogsResponse]) -> Logs:
    output = Output()
    for answer in answers:
        output.add(convert.chunk(answer.chunk))
    return output.logs()
