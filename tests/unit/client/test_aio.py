"""The asyncio client against a daemon that runs nothing; what it shares with the blocking one is tested there."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from sandboxd.client import Accepted, AsyncClient, Chunk, PolicyDenied, Result, Unreachable
from sandboxd.rpc.v1 import audit_pb2, policy_pb2, sandbox_pb2
from tests.fakes import audit_service
from tests.fakes.server import FakeDaemon, accepted, approval, chunk, hangs, refuses, result, says, serving


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon(says(accepted(), chunk("stdout", b"hello"), result(exit_code=3)))


@pytest.fixture
def address(daemon: FakeDaemon, tmp_path: Path) -> Iterator[str]:
    with serving(daemon, tmp_path / "s") as made:
        yield made


async def test_run_gives_the_whole_output(address: str) -> None:
    async with AsyncClient(address) as client:
        done = await client.run(["x"])
    assert (done.stdout, done.exit_code, done.ok) == (b"hello", 3, False)


async def test_run_code_sends_source(address: str, daemon: FakeDaemon) -> None:
    async with AsyncClient(address) as client:
        await client.run_code("print(1)")
    assert (daemon.requests[0].code.language, daemon.requests[0].code.source) == ("python", "print(1)")


async def test_execute_yields_events_in_order(address: str) -> None:
    async with AsyncClient(address) as client:
        kinds = [type(event) async for event in client.execute(["x"])]
    assert kinds == [Accepted, Chunk, Result]


async def test_refusal_carries_reason_and_message_for_agent(address: str, daemon: FakeDaemon) -> None:
    daemon.script = refuses(grpc.StatusCode.PERMISSION_DENIED, "no_shell", "denied", "use python")
    async with AsyncClient(address) as client:
        with pytest.raises(PolicyDenied) as caught:
            await client.run(["x"])
    assert (caught.value.reason, caught.value.message_for_agent) == ("no_shell", "use python")


async def test_cancelled_task_cancels_the_call(address: str, daemon: FakeDaemon) -> None:
    daemon.script = hangs(daemon, accepted())
    async with AsyncClient(address) as client:
        task = asyncio.create_task(client.run(["x"]))
        assert await asyncio.to_thread(daemon.running.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(daemon.cancelled.wait, 10)


async def test_closing_the_events_cancels_the_call(address: str, daemon: FakeDaemon) -> None:
    daemon.script = hangs(daemon, accepted())
    async with AsyncClient(address) as client:
        async with aclosing(client.execute(["x"])) as events:
            assert isinstance(await anext(events), Accepted)
        assert await asyncio.to_thread(daemon.cancelled.wait, 10)


async def test_absent_daemon_is_unreachable(tmp_path: Path) -> None:
    async with AsyncClient(str(tmp_path / "none")) as client:
        with pytest.raises(Unreachable, match="sandboxd serve"):
            await client.profiles()


async def test_policy_is_shown_and_explained_as_in_the_blocking_client(address: str, daemon: FakeDaemon) -> None:
    daemon.policy = policy_pb2.Policy(revision="r7")
    async with AsyncClient(address) as client:
        assert (await client.policy()).revision == "r7"
        assert (await client.check_policy("{}")).verdict == "deny"


async def test_listing_logs_and_kill_work_as_in_the_blocking_client(address: str, daemon: FakeDaemon) -> None:
    daemon.executions = tuple(sandbox_pb2.Execution(execution_id=str(n)) for n in range(3))
    daemon.logs = (chunk("stderr", b"c").chunk,)
    async with AsyncClient(address) as client:
        assert len(await client.executions()) == 3
        assert (await client.execution("2")).execution_id == "2"
        assert (await client.logs("2")).stderr == b"c"
        await client.kill("2", 9)
        assert (await client.capabilities()).node == "fake"
    assert daemon.kills == [("2", 9)]
    assert daemon.capability_calls == 2


async def test_approvals_work_as_in_the_blocking_client(address: str, daemon: FakeDaemon) -> None:
    daemon.approvals = tuple(map(approval, range(3)))
    async with AsyncClient(address) as client:
        assert len(await client.approvals()) == 3
        assert (await client.approve(f"{1:032x}", "fine")).approval_id == f"{1:032x}"
        assert (await client.deny(f"{2:032x}", "no")).approval_id == f"{2:032x}"
        async with aclosing(client.watch_approvals()) as updates:
            assert (await anext(updates)).approval_id == f"{0:032x}"
        assert await asyncio.to_thread(daemon.cancelled.wait, 30)
    assert daemon.votes == [(f"{1:032x}", True, "fine"), (f"{2:032x}", False, "no")]


async def test_the_record_is_read_as_by_the_blocking_client(address: str, daemon: FakeDaemon) -> None:
    daemon.audit.records = tuple(audit_service.record(seq) for seq in range(1, 4))
    daemon.audit.news = (audit_pb2.AuditServiceTailResponse(records=daemon.audit.records, next_seq=4),)
    daemon.audit.verification = audit_pb2.AuditServiceVerifyResponse(ok=True)
    daemon.audit.sinks = (audit_pb2.AuditSink(name="siem"),)
    async with AsyncClient(address) as client:
        page = await client.query_audit(limit=3)
        assert ([record.seq for record in page.records], page.next_page_token) == ([1, 2, 3], "")
        async with aclosing(client.tail_audit(from_seq=0)) as news:
            assert (await anext(news)).records == page.records
        assert await asyncio.to_thread(daemon.audit.left.wait, 30)
        assert (await client.verify_audit()).ok
        assert [sink.name for sink in await client.audit_sinks()] == ["siem"]
        assert (await client.audit_key()).key_id == "9" * 64
