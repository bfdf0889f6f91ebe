"""AuditService on a real server and a real journal: what operators find, follow and prove, and that others may not.

The caller is the daemon's own user, an operator.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sandboxd.audit.feed import SinkStatus
from sandboxd.audit.lookup import PAGE_BYTES
from sandboxd.audit.segment import segments
from sandboxd.errors import CallerRefused
from sandboxd.model import Caller
from sandboxd.rpc.audit import MAX_FILTER_CHARS, AuditService
from sandboxd.rpc.interceptors import Call, Streaming, Unary
from sandboxd.rpc.server import ServerConfig
from sandboxd.rpc.v1 import audit_pb2
from tests.fakes.events import violated
from tests.skips import need_root
from tests.unit.audit.looked_up import rewritten
from tests.unit.rpc.conftest import Served, serving
from tests.unit.rpc.test_approval import reason_of

GUEST = 4243
TailCall: TypeAlias = "grpc.aio.UnaryStreamCall[audit_pb2.AuditServiceTailRequest, audit_pb2.AuditServiceTailResponse]"
STATUS = SinkStatus(
    name="siem",
    type="falcosidekick",
    required=True,
    state="failing",
    sent_records=5,
    filtered_records=1,
    lag_records=7,
    lag_seconds=1.5,
    retries=3,
    failures=2,
    lost_records=4,
    refused_records=6,
    last_error="no \udce9 answer",
    last_error_at=1000.5,
    last_success_at=0.0,
)


async def write(served: Served, count: int, *, tenant: str = "local") -> None:
    for number in range(count):
        await served.audit.recorder.record(violated(f"detail {number}", tenant=tenant))


async def query(served: Served, **wanted: object) -> audit_pb2.AuditServiceQueryResponse:
    paging = {name: wanted.pop(name) for name in ("oldest_first", "page_size", "page_token") if name in wanted}
    request = audit_pb2.AuditServiceQueryRequest(filter=audit_pb2.AuditFilter(**wanted), **paging)  # type: ignore[arg-type]
    return await served.audits.Query(request)


def details(records: "list[audit_pb2.AuditRecord]") -> list[object]:
    return [json.loads(record.line)["fields"]["detail"] for record in records]


async def refused(call: "Callable[[], object]") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()  # type: ignore[misc]
    return caught.value.code(), reason_of(caught.value)


async def test_a_record_is_told_with_the_journals_own_line(served: Served) -> None:
    await write(served, 3)
    answer = await query(served, text="DETAIL 1", rule="sandbox.*", minimum_priority="Warning", tenant="local")
    (record,) = answer.records
    lines = [line for path in served.audit.recorder.directory.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert record.line in lines
    told = json.loads(record.line)
    assert (record.seq, record.rule, record.priority) == (told["seq"], "sandbox.violated", "Warning")
    assert f"{record.time.ToJsonString()}"[:19] == told["time"][:19]
    assert record.time.nanos == int(told["time"][20:29])
    following = json.loads(lines[lines.index(record.line) + 1])
    assert record.sha256 == following["prev"]
    assert answer.next_page_token == "" and not answer.damages


async def test_pages_lead_through_everything_in_both_orders(served: Served) -> None:
    await write(served, 60)
    for oldest_first in (True, False):
        found: list[object] = []
        token = ""
        while True:
            page = await query(served, text="detail", oldest_first=oldest_first, page_size=7, page_token=token)
            assert len(page.records) <= 7
            found += details(list(page.records))
            token = page.next_page_token
            if not token:
                break
        expected = [f"detail {number}" for number in range(60)]
        assert found == (expected if oldest_first else expected[::-1])


async def test_time_bounds_are_the_records_own(served: Served) -> None:
    await write(served, 3)
    all_of_them = list((await query(served, text="detail", oldest_first=True)).records)
    moment = all_of_them[1].time
    since = await query(served, since=moment, text="detail", oldest_first=True)
    until = await query(served, until=moment, text="detail")
    assert (details(list(since.records)), details(list(until.records))) == (["detail 1", "detail 2"], ["detail 0"])


async def test_an_edited_line_is_told_and_not_given_out(served: Served) -> None:
    await write(served, 3)
    (first, *_) = segments(served.audit.recorder.directory)
    found = list((await query(served, text="detail 1")).records)
    number = [json.loads(line)["seq"] for line in first.path.read_bytes().splitlines()].index(found[0].seq)
    rewritten(first.path, number, node="evil")
    answer = await query(served, text="detail 1")
    assert not answer.records
    (damage,) = answer.damages
    assert (damage.seq, damage.segment, damage.reason) == (
        found[0].seq, first.path.name, "the line is not the one that was indexed",
    )  # fmt: skip


@pytest.mark.parametrize(
    "wanted",
    [
        {"tenant": "x" * (MAX_FILTER_CHARS + 1)},
        {"text": "x" * 1_000_000},
        {"minimum_priority": "warning"},
        {"since": Timestamp(seconds=-1)},
        {"until": Timestamp(seconds=10**12)},
        {"since": Timestamp(nanos=-5)},
        {"page_token": "1 OR 1=1"},
        {"page_token": "-1"},
        {"page_token": "9" * 40},
        {"page_token": "٣"},
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused_by_name(served: Served, wanted: dict[str, object]) -> None:
    status = await refused(lambda: query(served, **wanted))
    assert status == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


@pytest.mark.parametrize("text", ['" OR 1 --', "%", "\0", "'; DROP TABLE records", "*", "NEAR(", "x" * 512])
async def test_hostile_text_is_data(served: Served, text: str) -> None:
    await write(served, 3)
    for wanted in ({"text": text}, {"tenant": text[:200]}, {"rule": text[:200]}, {"verdict": text[:200]}):
        assert (await query(served, **wanted)).damages == []
    assert len((await query(served, text="detail")).records) == 3


async def test_a_page_stays_within_a_message(served: Served) -> None:
    for _ in range(60):
        await served.audit.recorder.record(violated("x" * 100))
    page = await query(served, page_size=2**32 - 1)
    assert len(page.records) > 60
    assert page.ByteSize() < 2 * PAGE_BYTES


def tail(served: Served, from_seq: int | None = None, **wanted: object) -> TailCall:
    request = audit_pb2.AuditServiceTailRequest(filter=audit_pb2.AuditFilter(**wanted), from_seq=from_seq)  # type: ignore[arg-type]
    return served.audits.Tail(request)


async def following(call: TailCall, count: int) -> list[object]:
    found: list[object] = []
    while len(found) < count:
        message = await call.read()
        assert isinstance(message, audit_pb2.AuditServiceTailResponse), "the stream has ended"
        found += details(list(message.records))
    return found


async def test_a_tail_has_the_backlog_and_then_what_is_new(served: Served) -> None:
    await write(served, 50)
    call = tail(served, 0, text="detail")
    assert await following(call, 50) == [f"detail {number}" for number in range(50)]
    await served.audit.recorder.record(violated("detail new"))
    assert await following(call, 1) == ["detail new"]
    call.cancel()


async def test_a_tail_without_a_place_has_only_what_is_new_and_says_where_to_go_on(served: Served) -> None:
    await write(served, 5)
    call = tail(served)
    first = await call.read()
    assert isinstance(first, audit_pb2.AuditServiceTailResponse)
    assert (list(first.records), first.caught_up) == ([], True)
    assert first.next_seq == served.audit.recorder.readable.link.seq + 1
    await write(served, 1)
    assert await following(call, 1) == ["detail 0"]
    call.cancel()
    again = tail(served, first.next_seq)
    assert await following(again, 1) == ["detail 0"]
    again.cancel()


async def test_a_place_that_the_journal_has_not_come_to_is_refused(served: Served) -> None:
    call = tail(served, served.audit.recorder.readable.link.seq + 2)
    assert await refused(call.read) == (grpc.StatusCode.INVALID_ARGUMENT, "ahead_of_journal")


async def test_a_reader_that_never_reads_holds_up_nobody_and_misses_nothing(served: Served) -> None:
    slow = tail(served, 0, text="detail")
    await slow.read()
    text = "detail " + "x" * 400
    for _ in range(1500):
        await served.audit.recorder.record(violated(text))
    quick = tail(served, 0, text="detail")
    assert len(await following(quick, 1500)) == 1500
    assert len(await following(slow, 1500)) == 1500
    quick.cancel()
    slow.cancel()


async def test_the_end_of_the_node_ends_a_tail(served: Served) -> None:
    call = tail(served)
    await call.read()
    served.audit.reader.close()
    assert await refused(call.read) == (grpc.StatusCode.UNAVAILABLE, "draining")


async def test_a_tail_that_is_left_is_forgotten(served: Served) -> None:
    followers = len(served.audit.recorder._followers)
    call = tail(served)
    await call.read()
    assert len(served.audit.recorder._followers) == followers + 1
    call.cancel()
    async with asyncio.timeout(30):
        while len(served.audit.recorder._followers) > followers:
            await asyncio.sleep(0.01)


async def test_verification_tells_what_it_found(served: Served) -> None:
    await write(served, 200)
    good = await served.audits.Verify(audit_pb2.AuditServiceVerifyRequest())
    key = await served.audits.GetKey(audit_pb2.AuditServiceGetKeyRequest())
    assert (good.ok, good.HasField("first_bad"), good.first_seq) == (True, False, 1)
    assert good.records == good.last_seq > 200
    assert good.checkpoints > 1 and good.sealed_at.seconds > 0
    assert good.key_id == key.key_id and "BEGIN PUBLIC KEY" in key.public_key_pem
    (first, *_) = segments(served.audit.recorder.directory)
    rewritten(first.path, 4, node="evil")
    bad = await served.audits.Verify(audit_pb2.AuditServiceVerifyRequest())
    assert (bad.ok, bad.records) == (False, 4)
    assert (bad.first_bad.segment, bad.first_bad.line, bad.first_bad.seq, bad.first_bad.fault) == (
        first.path.name, 5, 5, "edited",
    )  # fmt: skip


async def test_one_verification_at_a_time(served: Served) -> None:
    request = audit_pb2.AuditServiceVerifyRequest()
    answers = await asyncio.gather(*(served.audits.Verify(request) for _ in range(3)), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [(error.code(), reason_of(error)) for error in errors] == [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "verifying")
    ] * 2
    assert (await served.audits.Verify(request)).ok


async def test_sinks_are_told_of_in_full(served: Served) -> None:
    served.audit.sinks.extend((STATUS, replace(STATUS, name="well", last_error="", last_error_at=0.0)))
    told = (await served.audits.ListSinks(audit_pb2.AuditServiceListSinksRequest())).sinks
    assert told[0] == audit_pb2.AuditSink(
        name="siem",
        type="falcosidekick",
        required=True,
        state="failing",
        sent_records=5,
        filtered_records=1,
        lag_records=7,
        lag_seconds=1.5,
        retries=3,
        failures=2,
        lost_records=4,
        refused_records=6,
        last_error="no \\udce9 answer",
        last_error_at=Timestamp(seconds=1000, nanos=500_000_000),
    )
    assert (told[1].name, told[1].HasField("last_error_at")) == ("well", False)


@pytest.mark.parametrize("name", ["Query", "Tail", "Verify", "ListSinks", "GetKey"])
async def test_nothing_of_it_is_for_others_than_operators(served: Served, name: str) -> None:
    method = AuditService(served.audit.reader, lambda: ()).methods()[name]
    guest = Call(Caller("local", "uid:7", (), name), "")
    with pytest.raises(CallerRefused, match="for operators"):
        if isinstance(method, Unary):
            await method.answer(method.request(), guest)
        else:
            assert isinstance(method, Streaming)
            await anext(method.answers(method.request(), guest))


ASK = """
import sys, grpc
from grpc_status import rpc_status
channel = grpc.insecure_channel("unix:" + sys.argv[1])
for name in ("Query", "Verify", "ListSinks", "GetKey", "Tail"):
    make = channel.unary_stream if name == "Tail" else channel.unary_unary
    call = make("/sandboxd.v1.AuditService/" + name)
    try:
        list(call(b"", timeout=30)) if name == "Tail" else call(b"", timeout=30)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name, "operators" in error.details())
"""


async def test_an_allowed_uid_that_is_no_operator_is_told_so(tmp_path: Path) -> None:
    need_root()
    config = ServerConfig(socket=Path("/tmp") / f"s{os.getpid()}" / "run" / "s.sock", allowed_uids=(GUEST,))
    config.socket.parent.parent.mkdir(mode=0o755)
    try:
        async with serving(config) as served:
            await write(served, 1)
            finished = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", ASK, str(config.socket)],
                stdout=subprocess.PIPE,
                user=GUEST,
                group=GUEST,
                extra_groups=(),
                env={"PYTHONPATH": os.pathsep.join(sys.path)},
            )
    finally:
        await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(config.socket.parent.parent)], check=True)
    assert finished.stdout.decode().splitlines() == ["PERMISSION_DENIED True"] * 5
