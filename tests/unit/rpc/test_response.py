"""The responses of NodeService on a real server. The caller is the daemon's own user, an operator."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from sandboxd.errors import CallerRefused
from sandboxd.model import Isolation
from sandboxd.rpc.interceptors import Call, Streaming, Unary
from sandboxd.rpc.response import MAX_COMMENT_CHARS, MAX_WORKSPACE_BYTES, Responses
from sandboxd.rpc.v1 import node_pb2
from tests.fakes.incidents import OPERATOR, SOMEBODY, Incidents
from tests.unit.rpc.conftest import Served
from tests.unit.rpc.test_approval import reason_of

ME = f"uid:{os.geteuid()}"
QUARANTINE = node_pb2.MEASURE_QUARANTINE


async def refused(served: Served, request: node_pb2.RespondRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.node.Respond(request)
    return caught.value.code(), reason_of(caught.value)


def request(measure: int = QUARANTINE, comment: str = "", **target: str) -> node_pb2.RespondRequest:
    return node_pb2.RespondRequest(
        measure=measure,  # type: ignore[arg-type]  # a number, as it comes over the wire
        target=node_pb2.ResponseTarget(**target),
        comment=comment,
    )


async def test_quarantine_is_listed_with_who_and_why_until_it_is_lifted(served: Served) -> None:
    await served.node.Respond(request(subject="uid:7", comment="why"))
    (one,) = (await served.node.ListQuarantines(node_pb2.ListQuarantinesRequest())).quarantines
    assert (one.tenant, one.subject, one.by, one.rule, one.comment) == ("local", "uid:7", ME, "", "why")
    assert one.since.ToJsonString() == "2023-11-14T22:13:20.250Z"
    await served.node.Respond(request(node_pb2.MEASURE_LIFT, subject="uid:7"))
    assert not (await served.node.ListQuarantines(node_pb2.ListQuarantinesRequest())).quarantines
    assert (await refused(served, request(node_pb2.MEASURE_LIFT, subject="uid:7")))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "wrong",
    [
        request(0, subject="uid:7"),
        request(99, subject="uid:7"),
        request(),
        request(tenant=""),
        request(subject="uid:7", comment="x" * (MAX_COMMENT_CHARS + 1)),
    ],
)
async def test_request_that_does_not_say_what_or_whom_is_refused(
    served: Served, wrong: node_pb2.RespondRequest
) -> None:
    assert await refused(served, wrong) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


async def test_what_is_not_known_cannot_be_frozen_or_looked_into(served: Served) -> None:
    target = node_pb2.ResponseTarget(sandbox_id="f" * 32)
    asked = node_pb2.RespondRequest(measure=node_pb2.MEASURE_FREEZE, target=target)
    assert await refused(served, asked) == (grpc.StatusCode.NOT_FOUND, "not_found")
    for wrong, code in (
        (node_pb2.ExamineRequest(target=target), grpc.StatusCode.NOT_FOUND),
        (node_pb2.ExamineRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (node_pb2.ExamineRequest(target=node_pb2.ResponseTarget(tenant="local")), grpc.StatusCode.INVALID_ARGUMENT),
        (
            node_pb2.ExamineRequest(target=target, workspace_bytes=MAX_WORKSPACE_BYTES + 1),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in served.node.Examine(wrong):
                pass
        assert caught.value.code() is code


async def test_evidence_comes_file_by_file(incidents: Incidents) -> None:
    running = await incidents.start()
    found: dict[str, bytes] = {}
    responses = Responses(incidents.responder, {Isolation.PROCESS: incidents.runtime}, lambda: "7" * 32)
    spec = responses.methods()["Examine"]
    assert isinstance(spec, Streaming)
    asked = node_pb2.ExamineRequest(target=node_pb2.ResponseTarget(execution_id=running.execution_id))
    async for piece in spec.answers(asked, Call(OPERATOR, "")):
        assert isinstance(piece, node_pb2.ExamineResponse)
        found[piece.name] = found.get(piece.name, b"") + piece.data
    assert list(found) == ["execution.json", "limits.json", "enforcement.json", "processes.json", "workspace.tar"]
    told = json.loads(found["execution.json"])
    assert (told["execution_id"], told["frozen"], told["profile"]) == (running.execution_id, False, "mine")
    assert json.loads(found["limits.json"])["pids"] == 64
    assert json.loads(found["enforcement.json"])["runtime"] == "process"


async def test_nobody_but_an_operator_may_see_or_do_anything(incidents: Incidents) -> None:
    running = await incidents.start()
    responses = Responses(incidents.responder, {Isolation.PROCESS: incidents.runtime}, lambda: "7" * 32).methods()
    target = node_pb2.ResponseTarget(execution_id=running.execution_id)
    call = Call(SOMEBODY, "")
    respond, listing, examine = responses["Respond"], responses["ListQuarantines"], responses["Examine"]
    assert isinstance(respond, Unary) and isinstance(listing, Unary) and isinstance(examine, Streaming)
    with pytest.raises(CallerRefused):
        await respond.answer(node_pb2.RespondRequest(measure=node_pb2.MEASURE_KILL, target=target), call)
    with pytest.raises(CallerRefused):
        await listing.answer(node_pb2.ListQuarantinesRequest(), call)
    with pytest.raises(CallerRefused):
        async for _ in examine.answers(node_pb2.ExamineRequest(target=target), call):
            pass
    assert not running.supervision.over


@pytest.fixture
async def incidents(tmp_path: Path) -> AsyncIterator[Incidents]:
    made = Incidents(tmp_path)
    yield made
    await made.end()
