"""ApprovalService on a real server: lists are paged and private, votes go through policy, a stuck watcher falls out.

The caller is the daemon's own user, an operator; who asked is another.
"""

import asyncio
import json
import os
from dataclasses import replace
from typing import TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from sandboxd.approval.case import MAX_COMMENT_CHARS
from sandboxd.approval.watching import MAX_UNREAD
from sandboxd.errors import PolicyDenied
from sandboxd.model import Decision, Reason, Verdict
from sandboxd.rpc import status
from sandboxd.rpc.v1 import approval_pb2
from tests.fakes.approvals import asked
from tests.unit.rpc.conftest import Served

ID = f"{1:032x}"
ME = f"uid:{os.geteuid()}"


def reason_of(error: grpc.aio.AioRpcError) -> str:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    return str(info.reason)


async def refused(served: Served, *, approve: bool = True, comment: str = "") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if approve:
            await served.approval.Approve(approval_pb2.ApprovalServiceApproveRequest(approval_id=ID, comment=comment))
        else:
            await served.approval.Deny(approval_pb2.ApprovalServiceDenyRequest(approval_id=ID, comment=comment))
    return caught.value.code(), reason_of(caught.value)


Watch: TypeAlias = (
    "grpc.aio.UnaryStreamCall[approval_pb2.ApprovalServiceWatchRequest, approval_pb2.ApprovalServiceWatchResponse]"
)


async def state(call: Watch) -> int:
    """Of the next that a watch tells."""
    update = await call.read()
    assert isinstance(update, approval_pb2.ApprovalServiceWatchResponse)
    return update.approval.state


async def listed(served: Served, **wanted: object) -> list[approval_pb2.Approval]:
    request = approval_pb2.ApprovalServiceListRequest(**wanted)  # type: ignore[arg-type]
    return list((await served.approval.List(request)).approvals)


async def test_everything_about_an_approval_is_told(served: Served) -> None:
    await served.office.settle(asked(quorum=2, approvers=("role:operator",)))
    (found,) = await listed(served)
    assert found == approval_pb2.Approval(
        approval_id=ID,
        state=approval_pb2.APPROVAL_STATE_PENDING,
        action_type="execution.start",
        requester="uid:1000",
        method="/sandboxd.v1.SandboxService/Execute",
        profile="default",
        profile_digest="d" * 64,
        policy_revision="r1",
        reasons=["c: m"],
        shown='{"argv":["/bin/true"]}',
        shown_bytes=22,
        shown_sha256="f" * 64,
        binding_sha256="b" * 64,
        approvers=["role:operator"],
        quorum=2,
        requested_at=found.requested_at,
        expires_at=found.expires_at,
        execution_id="e" * 32,
    )
    assert (found.requested_at.seconds, found.expires_at.seconds) == (1000, 1060)


async def test_a_vote_for_grants_and_is_told(served: Served) -> None:
    await served.office.settle()
    answer = await served.approval.Approve(approval_pb2.ApprovalServiceApproveRequest(approval_id=ID, comment="fine"))
    assert answer.approval.state == approval_pb2.APPROVAL_STATE_GRANTED
    (vote,) = answer.approval.votes
    assert (vote.approver, vote.approve, vote.comment, vote.voted_at.seconds) == (ME, True, "fine", 1000)
    assert (await served.office.settle()).verdict is Verdict.ALLOW


async def test_a_vote_against_denies_and_is_told(served: Served) -> None:
    await served.office.settle()
    answer = await served.approval.Deny(approval_pb2.ApprovalServiceDenyRequest(approval_id=ID, comment="never"))
    assert answer.approval.state == approval_pb2.APPROVAL_STATE_DENIED
    assert "never" in (await served.office.settle()).message_for_agent


@pytest.mark.parametrize("approve", [True, False])
async def test_each_vote_is_put_to_policy(served: Served, approve: bool) -> None:
    await served.office.settle()
    served.engine.answer = Decision(Verdict.DENY, (Reason("not_now", "not now"),), "r1")
    assert await refused(served, approve=approve) == (grpc.StatusCode.PERMISSION_DENIED, "not_now")
    action = json.loads(served.engine.asked[0].document)["action"]
    assert (action["type"], action["approve"]) == ("approval.decide", approve)


async def test_what_does_not_count_is_refused_by_name(served: Served) -> None:
    assert await refused(served) == (grpc.StatusCode.NOT_FOUND, "not_found")
    await served.office.settle(asked(requester=ME))
    assert await refused(served) == (grpc.StatusCode.PERMISSION_DENIED, "own_request")
    assert await refused(served, approve=False) == (grpc.StatusCode.PERMISSION_DENIED, "own_request")
    too_long = "x" * (MAX_COMMENT_CHARS + 1)
    assert await refused(served, comment=too_long) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


async def test_a_list_is_paged_and_pages_stay_right_while_approvals_come_and_go(served: Served) -> None:
    for number in range(5):
        await served.office.settle(asked(f"{number:064x}"))
        served.office.clock.advance(1)
    page = await served.approval.List(approval_pb2.ApprovalServiceListRequest(page_size=2))
    assert [found.approval_id[-1] for found in page.approvals] == ["1", "2"]
    await served.office.approve(f"{2:032x}")
    await served.office.settle(asked(f"{1:064x}"))  # uses it up
    token = page.next_page_token
    found = []
    while token:
        page = await served.approval.List(approval_pb2.ApprovalServiceListRequest(page_size=2, page_token=token))
        found += [approval.approval_id[-1] for approval in page.approvals]
        token = page.next_page_token
    assert found == ["3", "4", "5"]


async def test_one_approval_or_those_that_wait_can_be_asked_for(served: Served) -> None:
    await served.office.settle()
    await served.office.settle(asked("c" * 64))
    await served.office.deny(ID)
    assert [found.approval_id[-1] for found in await listed(served, approval_id=ID)] == ["1"]
    assert [found.approval_id[-1] for found in await listed(served, pending_only=True)] == ["2"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(served, approval_id="0" * 32)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_tells_what_is_pending_and_each_change(served: Served) -> None:
    await served.office.settle()
    call = served.approval.Watch(approval_pb2.ApprovalServiceWatchRequest())
    assert await state(call) == approval_pb2.APPROVAL_STATE_PENDING
    await served.office.approve(ID)
    await served.office.settle()
    states = [await state(call) for _ in range(2)]
    assert states == [approval_pb2.APPROVAL_STATE_GRANTED, approval_pb2.APPROVAL_STATE_CONSUMED]
    call.cancel()


async def test_a_watcher_that_never_reads_falls_out_and_holds_up_nobody(served: Served) -> None:
    call = served.approval.Watch(approval_pb2.ApprovalServiceWatchRequest())
    await served.office.settle()
    await call.read()
    for number in range(MAX_UNREAD * 3):
        await served.office.settle(replace(asked(f"{number:064x}"), shown="x" * 32_000))
        await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while True:
            assert await call.read() is not grpc.aio.EOF
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "watch_behind")


async def test_the_end_of_the_node_ends_a_watch(served: Served) -> None:
    await served.office.settle()
    call = served.approval.Watch(approval_pb2.ApprovalServiceWatchRequest())
    await call.read()
    served.office.approvals.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "draining")


def test_a_denied_action_names_its_approval() -> None:
    told = status_pb2.Status.FromString(status.details_of(PolicyDenied("m", approval_id=ID), ""))
    info = error_details_pb2.ErrorInfo()
    told.details[0].Unpack(info)
    assert dict(info.metadata) == {"approval_id": ID}
