"""SandboxService over a real channel: what a caller sees, and what the executor sees when the caller goes away."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import cast

import grpc
import pytest

from sandboxd.errors import PolicyDenied
from sandboxd.lifecycle import ExecutionRecord
from sandboxd.model import (
    LOCAL_TENANT,
    Caller,
    Chunk,
    EndReason,
    ExecuteRequest,
    OutputFile,
    Stream,
)
from sandboxd.rpc.sandbox import LOG_PIECE_BYTES
from sandboxd.rpc.server import ServerConfig
from sandboxd.rpc.v1 import sandbox_pb2, sandbox_pb2_grpc
from sandboxd.suspension import Suspension
from tests.fakes.executor import ACCEPTED, EXECUTION_ID, OUTCOME, REPORT, Item, endless
from tests.unit.rpc.conftest import Served

REQUEST = sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["true"]))
MEGABYTE = 1 << 20
READER = """
import sys, grpc
channel = grpc.insecure_channel("unix:" + sys.argv[1])
execute = channel.unary_stream("/sandboxd.v1.SandboxService/Execute")
for number, _event in enumerate(execute(bytes.fromhex(sys.argv[2]))):
    if number == 50:
        print(flush=True)
"""


class Runs:
    """A living execution for the registry."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.suspension: Suspension | None = None

    def end(self, reason: EndReason) -> None:
        self.done.append(reason)

    async def signal(self, signum: int) -> None:
        self.done.append(signum)


class Standing:
    frozen = True
    held = True


def record(number: int, tenant: str = LOCAL_TENANT) -> ExecutionRecord:
    return ExecutionRecord(
        execution_id=f"{number:032x}",
        sandbox_id=f"{number:032x}",
        tenant=tenant,
        subject="uid:0",
        profile="default",
        command="true",
        labels=(("job", str(number)),),
        requested_at=0.0,
    )


async def test_execute_streams_accepted_chunks_and_result_in_order(served: Served) -> None:
    events = [event async for event in served.sandbox.Execute(REQUEST)]
    assert [event.WhichOneof("event") for event in events] == ["accepted", "chunk", "chunk", "result"]
    assert events[0].accepted.execution_id == EXECUTION_ID
    assert events[0].accepted.enforcement.warnings == list(REPORT.warnings)
    assert (events[1].chunk.stream, events[1].chunk.data) == (sandbox_pb2.OUTPUT_STREAM_STDOUT, b"hello\n")
    assert events[3].result.exit_code == 0


async def test_executor_learns_who_called_and_by_which_method(served: Served) -> None:
    await served.sandbox.Run(REQUEST)
    (_request, caller), *_ = served.executor.requests
    assert caller.tenant == LOCAL_TENANT
    assert caller.subject.startswith("uid:")
    assert caller.method == "/sandboxd.v1.SandboxService/Run"


async def test_traceparent_of_metadata_reaches_the_request(served: Served) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    await served.sandbox.Run(REQUEST, metadata=(("traceparent", traceparent),))
    assert served.executor.requests[0][0].traceparent == traceparent


async def test_tracestate_of_metadata_reaches_the_request_whole(served: Served) -> None:
    parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    await served.sandbox.Run(REQUEST, metadata=(("tracestate", "a=1"), parent, ("tracestate", "b=2")))
    assert served.executor.requests[0][0].tracestate == "a=1,b=2"


async def test_run_answers_whole(served: Served) -> None:
    response = await served.sandbox.Run(REQUEST)
    assert (response.stdout, response.stderr) == (b"hello\n", b"oh\n")
    assert response.accepted.policy_revision == "r1"
    assert response.result.end_reason == sandbox_pb2.END_REASON_EXITED
    assert not response.result.stdout_truncated


async def test_run_keeps_the_head_of_a_flood_and_says_so(served: Served) -> None:
    async def flood(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        yield ACCEPTED
        for number in range(64):
            yield Chunk(Stream.STDOUT, number * MEGABYTE, bytes([number]) * MEGABYTE)
        yield OUTCOME

    served.executor.script = flood
    response = await served.sandbox.Run(REQUEST)
    assert response.stdout == b"\0" * ServerConfig(served.path).run_output_bytes
    assert response.result.stdout_truncated
    assert not response.result.stderr_truncated


async def test_files_that_do_not_fit_a_message_are_listed_as_skipped(served: Served) -> None:
    async def heavy(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        yield ACCEPTED
        files = (OutputFile("big", bytes(17 * MEGABYTE), 0o644), OutputFile("small", b"x", 0o644))
        yield replace(OUTCOME, files=files)

    served.executor.script = heavy
    events = [event async for event in served.sandbox.Execute(REQUEST)]
    assert [file.path for file in events[-1].result.files] == ["small"]
    assert [file.path for file in events[-1].result.files_skipped] == ["big"]


async def test_refusal_before_accepted_is_an_error(served: Served) -> None:
    async def refuse(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        raise PolicyDenied("policy says no", reason="no_network", message_for_agent="do not use the network")
        yield ACCEPTED

    served.executor.script = refuse
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.sandbox.Run(REQUEST)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "policy says no"


async def test_cancelled_call_ends_the_execution(served: Served) -> None:
    served.executor.script = endless
    call = served.sandbox.Execute(REQUEST)
    await anext(aiter(call))
    assert not served.executor.ended.is_set()
    call.cancel()
    await asyncio.wait_for(served.executor.ended.wait(), 5)


async def test_cancelled_run_ends_the_execution(served: Served) -> None:
    running = asyncio.Event()

    async def wait(request: ExecuteRequest, caller: Caller) -> AsyncGenerator[Item, None]:
        running.set()
        async for item in endless(request, caller):
            yield item

    served.executor.script = wait
    call = served.sandbox.Run(REQUEST)
    await asyncio.wait_for(running.wait(), 5)
    call.cancel()
    await asyncio.wait_for(served.executor.ended.wait(), 5)


async def test_passed_deadline_ends_the_execution(served: Served) -> None:
    served.executor.script = endless
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _event in served.sandbox.Execute(REQUEST, timeout=0.2):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served.executor.ended.wait(), 5)


async def test_lost_connection_ends_the_execution(served: Served) -> None:
    served.executor.script = endless
    async with grpc.aio.insecure_channel(f"unix:{served.path}") as channel:
        await anext(aiter(sandbox_pb2_grpc.SandboxServiceStub(channel).Execute(REQUEST)))
    await asyncio.wait_for(served.executor.ended.wait(), 5)


async def test_slow_reader_stops_the_generator(served: Served) -> None:
    async def flood(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        yield ACCEPTED
        offset = 0
        while True:
            yield Chunk(Stream.STDOUT, offset, bytes(65536))
            offset += 65536

    served.executor.script = flood
    call = served.sandbox.Execute(REQUEST)
    await anext(aiter(call))
    handed_out = -1
    while handed_out != served.executor.handed_out:  # until it stands still
        handed_out = served.executor.handed_out
        await asyncio.sleep(0.3)
    assert handed_out * 65536 < 32 * MEGABYTE
    events = aiter(call)
    for _ in range(handed_out):
        await anext(events)
    assert served.executor.handed_out > handed_out
    call.cancel()
    await asyncio.wait_for(served.executor.ended.wait(), 5)


async def test_killed_reader_of_a_flood_ends_the_execution_without_an_error_in_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async def flood(_request: ExecuteRequest, _caller: Caller) -> AsyncGenerator[Item, None]:
        yield ACCEPTED
        while True:
            yield Chunk(Stream.STDOUT, 0, bytes(65536))

    served.executor.script = flood
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                READER,
                str(served.path),
                REQUEST.SerializeToString().hex(),
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            await asyncio.wait_for(process.stdout.readline(), 20)
            assert not served.executor.ended.is_set()
            process.kill()
            await process.wait()
            await asyncio.wait_for(served.executor.ended.wait(), 5)
            served.executor.ended.clear()
        await served.server.stop(1)
    assert not caplog.records


async def test_known_execution_is_told(served: Served) -> None:
    served.registry.add(record(1), Runs())
    served.registry.started(record(1).execution_id, REPORT)
    response = await served.sandbox.GetExecution(sandbox_pb2.GetExecutionRequest(execution_id=record(1).execution_id))
    assert response.execution.state == sandbox_pb2.EXECUTION_STATE_RUNNING
    assert dict(response.execution.labels) == {"job": "1"}
    assert response.execution.started_at.ToJsonString() == "2023-11-14T22:13:20.250Z"
    assert not response.execution.HasField("result")


async def test_frozen_and_held_execution_is_told_as_such_alone_and_in_the_list(served: Served) -> None:
    running = Runs()
    served.registry.add(record(1), running)
    served.registry.add(record(2), Runs())
    running.suspension = cast(Suspension, Standing())
    one = await served.sandbox.GetExecution(sandbox_pb2.GetExecutionRequest(execution_id=record(1).execution_id))
    listed = await served.sandbox.ListExecutions(sandbox_pb2.ListExecutionsRequest())
    assert (one.execution.frozen, one.execution.held) == (True, True)
    assert [(each.frozen, each.held) for each in listed.executions] == [(False, False), (True, True)]


async def test_foreign_and_unknown_executions_get_the_same_answer(served: Served) -> None:
    served.registry.add(record(1, tenant="other"), Runs())
    answers = set()
    for number in (1, 2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.sandbox.GetExecution(sandbox_pb2.GetExecutionRequest(execution_id=record(number).execution_id))
        details = (caught.value.details() or "").replace(record(number).execution_id, "ID")
        answers.add((caught.value.code(), details))
    assert len(answers) == 1
    assert answers.pop()[0] is grpc.StatusCode.NOT_FOUND


async def test_list_pages_newest_first_and_filters_the_living(served: Served) -> None:
    for number in range(5):
        served.registry.add(record(number), Runs())
    served.registry.ended(record(4).execution_id, OUTCOME)
    listed: list[str] = []
    token = ""
    for _ in range(3):
        page = await served.sandbox.ListExecutions(sandbox_pb2.ListExecutionsRequest(page_size=2, page_token=token))
        listed += [execution.execution_id for execution in page.executions]
        token = page.next_page_token
    assert token == ""
    assert listed == [record(number).execution_id for number in (4, 3, 2, 1, 0)]
    living = await served.sandbox.ListExecutions(sandbox_pb2.ListExecutionsRequest(living_only=True))
    assert record(4).execution_id not in {execution.execution_id for execution in living.executions}


@pytest.mark.parametrize("token", ["x", "1.0", "nan-/", "a/b"])
async def test_made_up_page_token_is_refused(served: Served, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.sandbox.ListExecutions(sandbox_pb2.ListExecutionsRequest(page_token=token))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_logs_come_in_pieces_stdout_first(served: Served) -> None:
    served.registry.add(record(1), Runs())
    output = bytes(range(256)) * 512
    served.registry.keep(record(1).execution_id, Chunk(Stream.STDOUT, 0, output))
    served.registry.keep(record(1).execution_id, Chunk(Stream.STDERR, 0, b"oh"))
    request = sandbox_pb2.GetLogsRequest(execution_id=record(1).execution_id)
    chunks = [response.chunk async for response in served.sandbox.GetLogs(request)]
    assert [chunk.offset for chunk in chunks] == [0, LOG_PIECE_BYTES, 0]
    assert b"".join(chunk.data for chunk in chunks) == output + b"oh"


@pytest.mark.parametrize(("signal", "done"), [(None, EndReason.KILLED), (15, 15)])
async def test_kill_reaches_the_execution(served: Served, signal: int | None, done: object) -> None:
    running = Runs()
    served.registry.add(record(1), running)
    await served.sandbox.KillExecution(
        sandbox_pb2.KillExecutionRequest(execution_id=record(1).execution_id, signal=signal)
    )
    assert running.done == [done]


@pytest.mark.parametrize("signal", [0, -9, 65])
async def test_kill_with_a_signal_that_does_not_exist_is_refused(served: Served, signal: int) -> None:
    running = Runs()
    served.registry.add(record(1), running)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.sandbox.KillExecution(
            sandbox_pb2.KillExecutionRequest(execution_id=record(1).execution_id, signal=signal)
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert running.done == []
