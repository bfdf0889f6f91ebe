"""ApprovalService: what waits for people, and their votes. Decides nothing itself. Bound to gRPC by `server`."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from sandboxd.approval.case import MAX_COMMENT_CHARS, State, Update, expires_at
from sandboxd.approval.office import Approvals
from sandboxd.errors import InvalidRequest
from sandboxd.rpc import convert
from sandboxd.rpc.interceptors import Call, Method, Streaming, Unary
from sandboxd.rpc.v1 import approval_pb2
from sandboxd.trace_context import trace_id_of
from sandboxd.voting import Voting

MAX_PAGE = 100  # what approvers read is up to 32 KiB each, and all of a page must fit into one answer

_STATES = {
    State.PENDING: approval_pb2.APPROVAL_STATE_PENDING,
    State.GRANTED: approval_pb2.APPROVAL_STATE_GRANTED,
    State.DENIED: approval_pb2.APPROVAL_STATE_DENIED,
    State.EXPIRED: approval_pb2.APPROVAL_STATE_EXPIRED,
    State.CONSUMED: approval_pb2.APPROVAL_STATE_CONSUMED,
}


class ApprovalService:
    NAME = approval_pb2.DESCRIPTOR.services_by_name["ApprovalService"].full_name

    def __init__(self, approvals: Approvals, voting: Voting, ids: Callable[[], str]) -> None:
        self._approvals = approvals
        self._voting = voting
        self._ids = ids

    def methods(self) -> dict[str, Method]:
        return {
            "List": Unary(approval_pb2.ApprovalServiceListRequest, self._list),
            "Watch": Streaming(approval_pb2.ApprovalServiceWatchRequest, self._watch),
            "Approve": Unary(approval_pb2.ApprovalServiceApproveRequest, self._approve),
            "Deny": Unary(approval_pb2.ApprovalServiceDenyRequest, self._deny),
        }

    async def _list(
        self, message: approval_pb2.ApprovalServiceListRequest, call: Call
    ) -> approval_pb2.ApprovalServiceListResponse:
        found = self._approvals.cases(call.caller)
        if message.approval_id:
            self._approvals.case(message.approval_id, call.caller)
        wanted = [
            update
            for update in found
            if message.approval_id in ("", update.case.approval_id)
            and not (message.pending_only and update.state is not State.PENDING)
            and _position(update) > message.page_token
        ]
        size = min(message.page_size or MAX_PAGE, MAX_PAGE)
        page = sorted(wanted, key=_position)[:size]
        return approval_pb2.ApprovalServiceListResponse(
            approvals=[_approval(update) for update in page],
            next_page_token=_position(page[-1]) if len(wanted) > size else "",
        )

    async def _watch(
        self, _message: approval_pb2.ApprovalServiceWatchRequest, call: Call
    ) -> AsyncGenerator[approval_pb2.ApprovalServiceWatchResponse, None]:
        async with aclosing(self._approvals.watch(call.caller)) as updates:
            async for update in updates:
                yield approval_pb2.ApprovalServiceWatchResponse(approval=_approval(update))

    async def _approve(
        self, message: approval_pb2.ApprovalServiceApproveRequest, call: Call
    ) -> approval_pb2.ApprovalServiceApproveResponse:
        update = await self._vote(message.approval_id, message.comment, call, approve=True)
        return approval_pb2.ApprovalServiceApproveResponse(approval=_approval(update))

    async def _deny(
        self, message: approval_pb2.ApprovalServiceDenyRequest, call: Call
    ) -> approval_pb2.ApprovalServiceDenyResponse:
        update = await self._vote(message.approval_id, message.comment, call, approve=False)
        return approval_pb2.ApprovalServiceDenyResponse(approval=_approval(update))

    async def _vote(self, approval_id: str, comment: str, call: Call, *, approve: bool) -> Update:
        if len(comment) > MAX_COMMENT_CHARS:
            raise InvalidRequest(f"comment has {len(comment)} characters; say it in {MAX_COMMENT_CHARS}")
        trace_id = trace_id_of(call.traceparent, self._ids)
        return await self._voting.vote(approval_id, call.caller, trace_id, approve=approve, comment=comment)


def _position(update: Update) -> str:
    """Where it stands in the list: pages stay right while approvals come and go."""
    return f"{update.case.requested_at:020.6f}/{update.case.approval_id}"


def _approval(update: Update) -> approval_pb2.Approval:
    case = update.case
    asked = case.asked
    return approval_pb2.Approval(
        approval_id=case.approval_id,
        state=_STATES[update.state],
        action_type=asked.action_type,
        requester=convert.text(asked.requester),
        method=convert.text(asked.method),
        profile=convert.text(asked.profile.name),
        profile_digest=asked.profile.digest,
        policy_revision=convert.text(asked.revision),
        reasons=map(convert.text, asked.reasons),
        shown=convert.text(asked.shown),
        shown_bytes=asked.shown_bytes,
        shown_sha256=asked.shown_sha256,
        binding_sha256=asked.binding,
        approvers=map(convert.text, asked.rule.approvers),
        quorum=asked.rule.quorum,
        votes=[
            approval_pb2.ApprovalVote(
                approver=convert.text(vote.approver),
                approve=vote.approve,
                comment=convert.text(vote.comment),
                voted_at=convert.timestamp(vote.at),
            )
            for vote in case.votes
        ],
        requested_at=convert.timestamp(case.requested_at),
        expires_at=convert.timestamp(expires_at(case)),
        execution_id=asked.execution_id,
    )
