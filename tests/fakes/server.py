"""A daemon that runs nothing: it serves the real `sandboxd.v1` on a real unix socket from a script.

Used by the tests of the client and of the command line; never by the product.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import any_pb2, timestamp_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from sandboxd import __version__
from sandboxd.rpc.v1 import (
    approval_pb2,
    approval_pb2_grpc,
    audit_pb2_grpc,
    enforcement_pb2,
    node_pb2,
    node_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    profile_pb2,
    profile_pb2_grpc,
    sandbox_pb2,
    sandbox_pb2_grpc,
)
from tests.fakes.audit_service import FakeAudit

EXECUTION_ID = "0123456789abcdef0123456789abcdef"
Script = Callable[[sandbox_pb2.ExecuteRequest, grpc.ServicerContext], Iterator[sandbox_pb2.ExecuteEvent]]


@dataclass
class FakeDaemon:
    """What the fake answers with, and what it was asked."""

    script: Script
    version: str = __version__
    api_versions: tuple[str, ...] = ("v1",)
    page_size: int = 2
    executions: tuple[sandbox_pb2.Execution, ...] = ()
    logs: tuple[sandbox_pb2.OutputChunk, ...] = ()
    logs_hang: bool = False
    profiles: tuple[profile_pb2.Profile, ...] = ()
    policy: policy_pb2.Policy = field(default_factory=policy_pb2.Policy)
    checks: list[str] = field(default_factory=list)
    approvals: tuple[approval_pb2.Approval, ...] = ()
    votes: list[tuple[str, bool, str]] = field(default_factory=list)
    audit: FakeAudit = field(default_factory=FakeAudit)
    requests: list[sandbox_pb2.ExecuteRequest] = field(default_factory=list)
    kills: list[tuple[str, int | None]] = field(default_factory=list)
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    capability_calls: int = 0
    responses: list[node_pb2.RespondRequest] = field(default_factory=list)
    effect: int = node_pb2.EFFECT_FROZEN
    examined: list[node_pb2.ExamineRequest] = field(default_factory=list)
    evidence: tuple[tuple[str, bytes], ...] = ()
    running: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)


def accepted() -> sandbox_pb2.ExecuteEvent:
    row = enforcement_pb2.EnforcementRow
    report = enforcement_pb2.EnforcementReport(
        runtime=enforcement_pb2.ISOLATION_PROCESS,
        rows=[
            row(
                guarantee="network.none", state=enforcement_pb2.ENFORCEMENT_STATE_ENFORCED, layers=["netns", "seccomp"]
            ),
            row(
                guarantee="limit.memory",
                state=enforcement_pb2.ENFORCEMENT_STATE_DEGRADED,
                layers=["rlimit"],
                reason="no cgroup here",
            ),
        ],
        warnings=["memory is bounded per process only"],
    )
    return sandbox_pb2.ExecuteEvent(
        accepted=sandbox_pb2.Accepted(
            execution_id=EXECUTION_ID,
            sandbox_id="f" * 32,
            profile="python",
            profile_digest="d" * 64,
            policy_revision="r1",
            enforcement=report,
        )
    )


def chunk(stream: str, data: bytes, offset: int = 0) -> sandbox_pb2.ExecuteEvent:
    number = sandbox_pb2.OutputStream.Value(f"OUTPUT_STREAM_{stream.upper()}")
    return sandbox_pb2.ExecuteEvent(chunk=sandbox_pb2.OutputChunk(stream=number, offset=offset, data=data))


def result(
    *, end: str = "EXITED", exit_code: int | None = 0, signal: int | None = None, message: str = ""
) -> sandbox_pb2.ExecuteEvent:
    ended = sandbox_pb2.ExecutionResult(
        execution_id=EXECUTION_ID,
        end_reason=sandbox_pb2.EndReason.Value(f"END_REASON_{end}"),
        usage=sandbox_pb2.Usage(wall_seconds=0.25, peak_memory_bytes=1 << 20),
        message_for_agent=message,
    )
    if signal is not None:
        ended.signal = signal
    elif exit_code is not None:
        ended.exit_code = exit_code
    return sandbox_pb2.ExecuteEvent(result=ended)


def says(*events: sandbox_pb2.ExecuteEvent) -> Script:
    """A script that answers with these events, whatever it is asked."""

    def script(
        request: sandbox_pb2.ExecuteRequest, context: grpc.ServicerContext
    ) -> Iterator[sandbox_pb2.ExecuteEvent]:
        yield from events

    return script


def refuses(
    code: grpc.StatusCode, reason: str, message: str, message_for_agent: str = "", approval_id: str = ""
) -> Script:
    """A script that refuses as the daemon does: status and ErrorInfo."""

    def script(
        request: sandbox_pb2.ExecuteRequest, context: grpc.ServicerContext
    ) -> Iterator[sandbox_pb2.ExecuteEvent]:
        abort(context, code, reason, message, message_for_agent, approval_id)
        yield from ()

    return script


def abort(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    message_for_agent: str = "",
    approval_id: str = "",
) -> None:
    info = error_details_pb2.ErrorInfo(reason=reason, domain="sandboxd.io")
    if message_for_agent:
        info.metadata["message_for_agent"] = message_for_agent
    if approval_id:
        info.metadata["approval_id"] = approval_id
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=[detail])
    context.abort_with_status(rpc_status.to_status(status))


def approval(number: int = 1, state: int = approval_pb2.APPROVAL_STATE_PENDING) -> approval_pb2.Approval:
    return approval_pb2.Approval(
        approval_id=f"{number:032x}",
        state=state,  # type: ignore[arg-type]  # a number, as it comes over the wire
        action_type="execution.start",
        requester="uid:1000",
        method="/sandboxd.v1.SandboxService/Execute",
        profile="python",
        profile_digest="d" * 64,
        policy_revision="r1",
        reasons=["review: evil\x1b]0;title\x07"],
        shown='{"argv":["pip","install","\x1b[2J"]}',
        shown_bytes=32,
        shown_sha256="f" * 64,
        binding_sha256="b" * 64,
        approvers=["role:operator"],
        quorum=2,
        votes=[approval_pb2.ApprovalVote(approver="uid:0", approve=True, comment="fine")],
        requested_at=timestamp_pb2.Timestamp(seconds=1000),
        expires_at=timestamp_pb2.Timestamp(seconds=1900),
        execution_id=EXECUTION_ID,
    )


def hangs(daemon: FakeDaemon, *events: sandbox_pb2.ExecuteEvent) -> Script:
    """A script that answers with these events and then runs until the client goes away."""

    def script(
        request: sandbox_pb2.ExecuteRequest, context: grpc.ServicerContext
    ) -> Iterator[sandbox_pb2.ExecuteEvent]:
        context.add_callback(daemon.cancelled.set)
        yield from events
        daemon.running.set()
        daemon.cancelled.wait(30)  # a test that fails must not hang

    return script


class _Sandbox(sandbox_pb2_grpc.SandboxServiceServicer):
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def Execute(
        self, request: sandbox_pb2.ExecuteRequest, context: grpc.ServicerContext
    ) -> Iterator[sandbox_pb2.ExecuteEvent]:
        self._daemon.requests.append(request)
        self._daemon.metadata.extend(context.invocation_metadata())
        return self._daemon.script(request, context)

    def Run(self, request: sandbox_pb2.ExecuteRequest, context: grpc.ServicerContext) -> sandbox_pb2.RunResponse:
        answer = sandbox_pb2.RunResponse()
        for event in self.Execute(request, context):
            match event.WhichOneof("event"):
                case "accepted":
                    answer.accepted.CopyFrom(event.accepted)
                case "chunk" if event.chunk.stream == sandbox_pb2.OUTPUT_STREAM_STDOUT:
                    answer.stdout += event.chunk.data
                case "chunk":
                    answer.stderr += event.chunk.data
                case "result":
                    answer.result.CopyFrom(event.result)
        return answer

    def GetExecution(
        self, request: sandbox_pb2.GetExecutionRequest, context: grpc.ServicerContext
    ) -> sandbox_pb2.GetExecutionResponse:
        for execution in self._daemon.executions:
            if execution.execution_id == request.execution_id:
                return sandbox_pb2.GetExecutionResponse(execution=execution)
        abort(context, grpc.StatusCode.NOT_FOUND, "not_found", f"no execution {request.execution_id!r}")
        raise AssertionError("abort raises")

    def ListExecutions(
        self, request: sandbox_pb2.ListExecutionsRequest, context: grpc.ServicerContext
    ) -> sandbox_pb2.ListExecutionsResponse:
        living = [
            execution
            for execution in self._daemon.executions
            if not request.living_only or execution.state != sandbox_pb2.EXECUTION_STATE_ENDED
        ]
        start = int(request.page_token or 0)
        end = start + self._daemon.page_size
        token = str(end) if end < len(living) else ""
        return sandbox_pb2.ListExecutionsResponse(executions=living[start:end], next_page_token=token)

    def GetLogs(
        self, request: sandbox_pb2.GetLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[sandbox_pb2.GetLogsResponse]:
        gone = threading.Event()
        context.add_callback(gone.set)
        for piece in self._daemon.logs:
            yield sandbox_pb2.GetLogsResponse(chunk=piece)
        if self._daemon.logs_hang:
            gone.wait(30)  # a test that fails must not hang

    def KillExecution(
        self, request: sandbox_pb2.KillExecutionRequest, context: grpc.ServicerContext
    ) -> sandbox_pb2.KillExecutionResponse:
        self._daemon.kills.append((request.execution_id, request.signal if request.HasField("signal") else None))
        return sandbox_pb2.KillExecutionResponse()


class _Node(node_pb2_grpc.NodeServiceServicer):
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def GetCapabilities(
        self, request: node_pb2.GetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> node_pb2.GetCapabilitiesResponse:
        self._daemon.capability_calls += 1
        return node_pb2.GetCapabilitiesResponse(
            version=self._daemon.version,
            api_versions=self._daemon.api_versions,
            node="fake",
            kernel="6.18.0",
            mode="root",
            policy_revision="r1",
            runtimes=[
                node_pb2.RuntimeCapabilities(
                    isolation=enforcement_pb2.ISOLATION_PROCESS, mode="root", rows=accepted().accepted.enforcement.rows
                )
            ],
        )

    def Respond(self, request: node_pb2.RespondRequest, context: grpc.ServicerContext) -> node_pb2.RespondResponse:
        self._daemon.responses.append(request)
        effect = node_pb2.ExecutionEffect(execution_id=EXECUTION_ID, effect=self._daemon.effect)  # type: ignore[arg-type]  # a number, as it comes over the wire
        return node_pb2.RespondResponse(effects=[effect])

    def ListQuarantines(
        self, request: node_pb2.ListQuarantinesRequest, context: grpc.ServicerContext
    ) -> node_pb2.ListQuarantinesResponse:
        one = node_pb2.Quarantine(tenant="local", subject="uid:1000", by="uid:0", rule="r", comment="evil\x1b]0;x\x07")
        one.since.seconds = 1000
        return node_pb2.ListQuarantinesResponse(quarantines=[one])

    def Examine(
        self, request: node_pb2.ExamineRequest, context: grpc.ServicerContext
    ) -> Iterator[node_pb2.ExamineResponse]:
        self._daemon.examined.append(request)
        for name, data in self._daemon.evidence:
            yield node_pb2.ExamineResponse(name=name, data=data)


class _Profile(profile_pb2_grpc.ProfileServiceServicer):
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def ListProfiles(
        self, request: profile_pb2.ListProfilesRequest, context: grpc.ServicerContext
    ) -> profile_pb2.ListProfilesResponse:
        return profile_pb2.ListProfilesResponse(profiles=self._daemon.profiles)

    def GetProfile(
        self, request: profile_pb2.GetProfileRequest, context: grpc.ServicerContext
    ) -> profile_pb2.GetProfileResponse:
        for profile in self._daemon.profiles:
            if profile.name == request.name:
                return profile_pb2.GetProfileResponse(profile=profile)
        abort(context, grpc.StatusCode.NOT_FOUND, "not_found", f"no profile {request.name!r}")
        raise AssertionError("abort raises")


class _Policy(policy_pb2_grpc.PolicyServiceServicer):
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def GetPolicy(
        self, request: policy_pb2.GetPolicyRequest, context: grpc.ServicerContext
    ) -> policy_pb2.GetPolicyResponse:
        return policy_pb2.GetPolicyResponse(policy=self._daemon.policy)

    def CheckPolicy(
        self, request: policy_pb2.CheckPolicyRequest, context: grpc.ServicerContext
    ) -> policy_pb2.CheckPolicyResponse:
        self._daemon.checks.append(request.input_json)
        return policy_pb2.CheckPolicyResponse(
            verdict="deny",
            reasons=[policy_pb2.PolicyReason(code="c", message="m")],
            message_for_agent="no",
            obligations_json="{}",
            revision="r1",
            rules=[policy_pb2.PolicyRule(path="p.rego", line=7, name="sandboxd.deny")],
        )


class _Approval(approval_pb2_grpc.ApprovalServiceServicer):
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def List(
        self, request: approval_pb2.ApprovalServiceListRequest, context: grpc.ServicerContext
    ) -> approval_pb2.ApprovalServiceListResponse:
        pending = approval_pb2.APPROVAL_STATE_PENDING
        found = [
            approval
            for approval in self._daemon.approvals
            if request.approval_id in ("", approval.approval_id)
            and (not request.pending_only or approval.state == pending)
        ]
        start = int(request.page_token or 0)
        end = start + self._daemon.page_size
        token = str(end) if end < len(found) else ""
        return approval_pb2.ApprovalServiceListResponse(approvals=found[start:end], next_page_token=token)

    def Watch(
        self, request: approval_pb2.ApprovalServiceWatchRequest, context: grpc.ServicerContext
    ) -> Iterator[approval_pb2.ApprovalServiceWatchResponse]:
        context.add_callback(self._daemon.cancelled.set)
        for approval in self._daemon.approvals:
            yield approval_pb2.ApprovalServiceWatchResponse(approval=approval)
        self._daemon.running.set()
        self._daemon.cancelled.wait(30)  # a test that fails must not hang

    def Approve(
        self, request: approval_pb2.ApprovalServiceApproveRequest, context: grpc.ServicerContext
    ) -> approval_pb2.ApprovalServiceApproveResponse:
        voted = self._voted(request.approval_id, request.comment, context, approve=True)
        return approval_pb2.ApprovalServiceApproveResponse(approval=voted)

    def Deny(
        self, request: approval_pb2.ApprovalServiceDenyRequest, context: grpc.ServicerContext
    ) -> approval_pb2.ApprovalServiceDenyResponse:
        voted = self._voted(request.approval_id, request.comment, context, approve=False)
        return approval_pb2.ApprovalServiceDenyResponse(approval=voted)

    def _voted(
        self, approval_id: str, comment: str, context: grpc.ServicerContext, *, approve: bool
    ) -> approval_pb2.Approval:
        for approval in self._daemon.approvals:
            if approval.approval_id == approval_id:
                self._daemon.votes.append((approval_id, approve, comment))
                return approval
        abort(context, grpc.StatusCode.NOT_FOUND, "not_found", f"no approval {approval_id!r}")
        raise AssertionError("abort raises")


@contextmanager
def serving(daemon: FakeDaemon, path: Path) -> Iterator[str]:
    """Serves `daemon` on the unix socket `path` and gives its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    sandbox_pb2_grpc.add_SandboxServiceServicer_to_server(_Sandbox(daemon), server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(_Node(daemon), server)
    profile_pb2_grpc.add_ProfileServiceServicer_to_server(_Profile(daemon), server)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(_Policy(daemon), server)
    approval_pb2_grpc.add_ApprovalServiceServicer_to_server(_Approval(daemon), server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(daemon.audit, server)
    address = f"unix:{path}"
    server.add_insecure_port(address)
    server.start()
    try:
        yield address
    finally:
        stopping = server.stop(grace=None)  # first: a script that ended by itself would end its stream in order
        daemon.cancelled.set()
        daemon.audit.left.set()
        stopping.wait()
