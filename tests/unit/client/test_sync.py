"""The blocking client against a daemon that runs nothing."""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

from sandboxd.client import (
    Accepted,
    Agent,
    ApprovalState,
    ApprovalVote,
    AuditBadRecord,
    AuditDamage,
    AuditFilter,
    AuditKey,
    AuditSink,
    AuditUnavailable,
    AuditVerification,
    Chunk,
    Client,
    Code,
    ConnectionLost,
    DeadlineExceeded,
    EndReason,
    InputFile,
    InvalidRequest,
    NotFound,
    Overloaded,
    PolicyDenied,
    Result,
    RuntimeFailed,
    SandboxdError,
    State,
    Stream,
    Unenforceable,
    Unreachable,
    VersionMismatch,
    question,
)
from sandboxd.client.policy import Policy, PolicyCheck, ShadowPolicy
from sandboxd.rpc.v1 import audit_pb2, policy_pb2, profile_pb2, sandbox_pb2
from tests.fakes import audit_service, server
from tests.fakes.server import FakeDaemon, accepted, chunk, hangs, refuses, result, says, serving


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon(
        says(accepted(), chunk("stdout", b"hel"), chunk("stderr", b"!"), chunk("stdout", b"lo"), result())
    )


@pytest.fixture
def client(daemon: FakeDaemon, tmp_path: Path) -> Iterator[Client]:
    with serving(daemon, tmp_path / "s") as address, Client(address) as made:
        yield made


def test_run_gives_the_whole_output_and_what_enforced_it(client: Client) -> None:
    done = client.run(["echo", "hello"])
    assert (done.stdout, done.stderr, done.exit_code, done.ok) == (b"hello", b"!", 0, True)
    assert done.execution_id == server.EXECUTION_ID
    assert done.end_reason is EndReason.EXITED
    assert done.enforcement.rows[1].state is State.DEGRADED
    assert done.enforcement.warnings == ("memory is bounded per process only",)
    assert done.usage.peak_memory_bytes == 1 << 20
    assert done.usage.peak_pids is None


def test_execute_yields_events_in_order(client: Client) -> None:
    events = list(client.execute(["x"]))
    assert isinstance(events[0], Accepted)
    assert events[1] == Chunk(Stream.STDOUT, 0, b"hel")
    assert isinstance(events[-1], Result)
    assert events[-1].enforcement == events[0].enforcement


def test_every_option_reaches_the_daemon(client: Client, daemon: FakeDaemon) -> None:
    client.run_code(
        "1",
        language="node",
        profile="strict",
        stdin=b"in",
        env={"A": "b"},
        cwd="sub",
        files={"a": b"1", "b": InputFile(b"2", 0o755)},
        collect=["*.txt"],
        limits={"memory_bytes": 64 << 20, "wall_seconds": 1.5},
        network="none",
        labels={"team": "x"},
        isolation="gvisor",
        agent=Agent(name="bot", tool_use_id="t1"),
        traceparent="00-aa-bb-01",
        timeout_seconds=30,
    )
    sent = daemon.requests[0]
    assert (sent.code.language, sent.code.source, sent.profile, sent.stdin) == ("node", "1", "strict", b"in")
    assert dict(sent.env) == {"A": "b"}
    assert [(f.path, f.content, f.HasField("mode"), f.mode) for f in sent.files] == [
        ("a", b"1", False, 0),
        ("b", b"2", True, 0o755),
    ]
    assert (sent.limits.memory_bytes, sent.limits.wall_seconds, sent.limits.HasField("pids")) == (64 << 20, 1.5, False)
    assert (sent.cwd, list(sent.collect), sent.network, dict(sent.labels)) == ("sub", ["*.txt"], "none", {"team": "x"})
    assert (sent.isolation, sent.agent.name, sent.agent.tool_use_id) == (2, "bot", "t1")
    assert sent.traceparent == "00-aa-bb-01"


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "policy_denied", PolicyDenied),
        (grpc.StatusCode.FAILED_PRECONDITION, "unenforceable", Unenforceable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate", Overloaded),
        (grpc.StatusCode.INVALID_ARGUMENT, "override_not_tighter", InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, "audit_unavailable", AuditUnavailable),
        (grpc.StatusCode.INTERNAL, "runtime_failed", RuntimeFailed),
    ],
)
def test_refusal_becomes_the_error_of_its_status_and_reason(
    client: Client, daemon: FakeDaemon, code: grpc.StatusCode, reason: str, kind: type[SandboxdError]
) -> None:
    daemon.script = refuses(code, reason, "no such luck", "try less")
    with pytest.raises(kind) as caught:
        client.run(["x"])
    assert type(caught.value) is kind
    assert (caught.value.reason, caught.value.message, caught.value.message_for_agent) == (
        reason,
        "no such luck",
        "try less",
    )


def test_leaving_the_loop_early_cancels_the_call(client: Client, daemon: FakeDaemon) -> None:
    daemon.script = hangs(daemon, accepted(), chunk("stdout", b"x"))
    events = client.execute(["x"])
    next(events)
    assert not daemon.cancelled.is_set()
    events.close()
    assert daemon.cancelled.wait(10)


def test_deadline_cancels_the_call_and_names_the_execution(client: Client, daemon: FakeDaemon) -> None:
    daemon.script = hangs(daemon, accepted())
    with pytest.raises(DeadlineExceeded) as caught:
        client.run(["x"], timeout_seconds=0.3)
    assert caught.value.execution_id == server.EXECUTION_ID
    assert daemon.cancelled.wait(10)


def test_of_a_cancelled_call_grpc_has_nothing_left_to_tell(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep the call for ever: 15 KB for each loop that is left early."""
    daemon.script = hangs(daemon, accepted(), chunk("stdout", b"x"))
    execute = client._execute
    calls: list[Any] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        calls.append(execute(*arguments, **options))
        return calls[-1]

    monkeypatch.setattr(client, "_execute", noted)
    events = client.execute(["x"])
    next(events)
    assert calls[0]._state.due
    events.close()
    assert daemon.cancelled.wait(10)
    daemon.cancelled.clear()
    with pytest.raises(DeadlineExceeded):
        client.run(["x"], timeout_seconds=0.3)
    assert [call._state.due for call in calls] == [set(), set()]


def test_stream_without_a_result_is_never_success(client: Client, daemon: FakeDaemon) -> None:
    daemon.script = says(accepted(), chunk("stdout", b"x"))
    with pytest.raises(RuntimeFailed, match="without a result") as caught:
        client.run(["x"])
    assert caught.value.reason == "no_result"


def test_events_and_enum_values_of_a_newer_daemon_are_passed_over(client: Client, daemon: FakeDaemon) -> None:
    newer = result()
    newer.result.end_reason = 99  # type: ignore[assignment]
    daemon.script = says(sandbox_pb2.ExecuteEvent(), accepted(), newer)
    assert client.run(["x"]).end_reason is EndReason.UNKNOWN


def test_absent_daemon_is_told_with_its_socket_and_a_way_out(tmp_path: Path) -> None:
    with Client(str(tmp_path / "none")) as client, pytest.raises(Unreachable, match="sandboxd serve") as caught:
        client.run(["x"])
    assert str(tmp_path / "none") in caught.value.message


def test_daemon_that_dies_in_the_middle_is_a_lost_connection(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.script = hangs(daemon, accepted())
    stack = serving(daemon, tmp_path / "s")
    with Client(stack.__enter__()) as client:
        events = client.execute(["x"])
        next(events)
        stack.__exit__(None, None, None)
        with pytest.raises(ConnectionLost) as caught:
            list(events)
    assert caught.value.execution_id == server.EXECUTION_ID


def test_major_version_apart_is_refused_before_anything_runs(client: Client, daemon: FakeDaemon) -> None:
    daemon.version = "99.0.0"
    with pytest.raises(VersionMismatch, match=r"99\.0\.0"):
        client.run(["x"])
    assert daemon.requests == []


def test_minor_version_apart_is_a_warning_and_asked_once(client: Client, daemon: FakeDaemon) -> None:
    daemon.version = "0.99.0"
    client.run(["x"])
    client.run(["x"])
    assert "0.99.0" in client.version_warning
    assert daemon.capability_calls == 1


def test_listing_follows_all_pages(client: Client, daemon: FakeDaemon) -> None:
    state = sandbox_pb2.EXECUTION_STATE_RUNNING
    daemon.executions = tuple(sandbox_pb2.Execution(execution_id=str(n), state=state) for n in range(5))
    assert [e.execution_id for e in client.executions()] == ["0", "1", "2", "3", "4"]


def test_unknown_execution_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.execution("nope")


def test_logs_are_gathered_by_stream(client: Client, daemon: FakeDaemon) -> None:
    daemon.logs = (chunk("stdout", b"a").chunk, chunk("stdout", b"b", 1).chunk, chunk("stderr", b"c").chunk)
    logs = client.logs("x")
    assert (logs.stdout, logs.stderr) == (b"ab", b"c")


def _objects_of_grpc() -> Counter[str]:
    gc.collect()
    return Counter(name for name in (str(type(each)) for each in gc.get_objects()) if name.startswith("<class 'grpc."))


def test_of_logs_that_miss_their_deadline_grpc_keeps_nothing(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first piece comes there is something to tell of a call that the client has not asked for."""
    client.check_version()
    daemon.logs_hang = True
    monkeypatch.setattr(question, "SECONDS", 0.01)
    before = _objects_of_grpc()
    for _ in range(20):
        with pytest.raises(DeadlineExceeded):
            client.logs("x")
    kept = _objects_of_grpc() - before
    assert all(count < 10 for count in kept.values()), kept  # the server, in this process too, may still have a few


def test_kill_names_a_signal_only_if_one_is_given(client: Client, daemon: FakeDaemon) -> None:
    client.kill("x")
    client.kill("y", 15)
    assert daemon.kills == [("x", None), ("y", 15)]


def test_profiles_are_read_whole(client: Client, daemon: FakeDaemon) -> None:
    profile = profile_pb2.Profile(name="python", network="none")
    profile.limits.wall_seconds = 10
    daemon.profiles = (profile,)
    assert client.profiles()[0].limits == (("wall_seconds", 10.0),)
    assert client.profile("python").network == "none"


def test_policy_is_read_whole_and_explained(client: Client, daemon: FakeDaemon) -> None:
    assert client.policy().shadow is None and client.policy().reload_failed_at is None
    daemon.policy = policy_pb2.Policy(
        engine="rego",
        revision="r7",
        version=7,
        files=[policy_pb2.PolicyFile(path="p.rego", sha256="ab")],
        breaker="open",
        reload_error="older",
        shadow=policy_pb2.ShadowPolicy(revision="r8", compared=5, differed=4, failed=3, dropped=2, error="e"),
    )
    daemon.policy.since.FromSeconds(1_700_000_000)
    daemon.policy.reload_failed_at.FromSeconds(1_700_000_001)
    since = datetime.fromtimestamp(1_700_000_000, UTC)
    shadow = ShadowPolicy("r8", 5, 4, 3, 2, "e")
    assert client.policy() == Policy(
        "rego", "r7", 7, since, (("p.rego", "ab"),), "older", since + timedelta(seconds=1), shadow, "open"
    )
    rules = (("p.rego", 7, "sandboxd.deny"),)
    assert client.check_policy("{}") == PolicyCheck("deny", (("c", "m"),), "no", "{}", "r1", rules)
    assert daemon.checks == ["{}"]


def test_code_can_be_streamed_too(client: Client, daemon: FakeDaemon) -> None:
    list(client.execute(Code("echo 1", "bash")))
    assert daemon.requests[0].code.language == "bash"


def test_a_denial_that_waits_for_people_carries_its_approval(client: Client, daemon: FakeDaemon) -> None:
    code = grpc.StatusCode.PERMISSION_DENIED
    for approval_id in ("a" * 32, ""):
        daemon.script = refuses(code, "approval_required", "m", "a", approval_id)
        with pytest.raises(PolicyDenied) as caught:
            client.run(["x"])
        assert (caught.value.reason, caught.value.approval_id) == ("approval_required", approval_id)


def test_approvals_are_listed_over_all_pages_or_asked_for_one_by_one(client: Client, daemon: FakeDaemon) -> None:
    daemon.approvals = tuple(server.approval(number, number % 3 + 1) for number in range(5))
    assert [found.approval_id[-1] for found in client.approvals()] == ["0", "1", "2", "3", "4"]
    assert [found.approval_id[-1] for found in client.approvals(pending_only=True)] == ["0", "3"]
    (one,) = client.approvals(f"{1:032x}")
    assert (one.state, one.requester, one.quorum, one.reasons) == (
        ApprovalState.GRANTED, "uid:1000", 2, ("review: evil\x1b]0;title\x07",),
    )  # fmt: skip
    assert one.votes == (ApprovalVote("uid:0", True, "fine", datetime(1970, 1, 1, tzinfo=UTC)),)
    assert one.expires_at == datetime(1970, 1, 1, 0, 31, 40, tzinfo=UTC)


def test_votes_reach_the_daemon(client: Client, daemon: FakeDaemon) -> None:
    daemon.approvals = (server.approval(),)
    assert client.approve(f"{1:032x}", "fine").approval_id == client.deny(f"{1:032x}").approval_id == f"{1:032x}"
    assert daemon.votes == [(f"{1:032x}", True, "fine"), (f"{1:032x}", False, "")]
    with pytest.raises(NotFound):
        client.approve("0" * 32)


def test_a_watch_goes_on_until_it_is_left(client: Client, daemon: FakeDaemon) -> None:
    daemon.approvals = (server.approval(1), server.approval(2, 99))
    updates = client.watch_approvals()
    assert [next(updates).state for _ in range(2)] == [ApprovalState.PENDING, ApprovalState.UNKNOWN]
    updates.close()
    assert daemon.cancelled.wait(30)


def test_a_query_is_followed_over_its_pages_to_its_limit(client: Client, daemon: FakeDaemon) -> None:
    daemon.audit.records = tuple(audit_service.record(seq) for seq in range(1, 6))
    daemon.audit.damages = (audit_pb2.AuditDamage(seq=9, segment="s", offset=7, reason="edited"),)
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    wanted = AuditFilter(since, since, "t", "e", "s", "policy.*", "deny", "Warning", "x")
    page = client.query_audit(wanted, limit=3, oldest_first=True)
    assert [record.seq for record in page.records] == [1, 2, 3]
    assert page.records[0].time == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert json.loads(page.records[0].line)["seq"] == 1
    assert page.damages == (AuditDamage(9, "s", 7, "edited"),)
    assert page.next_page_token == "3"
    rest = client.query_audit(wanted, page_token=page.next_page_token)
    assert ([record.seq for record in rest.records], rest.next_page_token) == ([4, 5], "")
    moment = timestamp_pb2.Timestamp(seconds=1_767_323_045)
    assert daemon.audit.queries[0] == audit_pb2.AuditServiceQueryRequest(
        filter=audit_pb2.AuditFilter(
            since=moment, until=moment, tenant="t", execution_id="e", sandbox_id="s", rule="policy.*", verdict="deny",
            minimum_priority="Warning", text="x",
        ),
        oldest_first=True,
        page_size=3,
    )  # fmt: skip
    assert [query.page_size for query in daemon.audit.queries] == [3, 1, 100]


def test_a_tail_goes_on_until_it_is_left(client: Client, daemon: FakeDaemon) -> None:
    daemon.audit.news = (
        audit_pb2.AuditServiceTailResponse(records=[audit_service.record(7)], next_seq=8, missing=6, caught_up=True),
    )
    news = client.tail_audit(AuditFilter(rule="policy.*"), 1)
    (first,) = [next(news)]
    assert ([record.seq for record in first.records], first.next_seq, first.missing, first.caught_up) == (
        [7],
        8,
        6,
        True,
    )
    news.close()
    assert daemon.audit.left.wait(30)
    assert daemon.audit.tails[0].from_seq == 1 and daemon.audit.tails[0].filter.rule == "policy.*"


def test_verification_sinks_and_key_are_told_in_full(client: Client, daemon: FakeDaemon) -> None:
    moment = timestamp_pb2.Timestamp(seconds=1000)
    daemon.audit.verification = audit_pb2.AuditServiceVerifyResponse(
        ok=False,
        records=4,
        first_bad=audit_pb2.AuditBadRecord(segment="s", line=5, seq=5, fault="edited", reason="r"),
        first_seq=1,
        last_seq=4,
        checkpoints=1,
        sealed_seq=3,
        sealed_at=moment,
        key_id="k",
    )
    when = datetime(1970, 1, 1, 0, 16, 40, tzinfo=UTC)
    bad = AuditBadRecord("s", 5, 5, "edited", "r")
    assert client.verify_audit() == AuditVerification(False, 4, bad, 0, 1, 4, 1, 3, when, "k")
    daemon.audit.verification = audit_pb2.AuditServiceVerifyResponse(ok=True)
    assert client.verify_audit() == AuditVerification(True, 0, None, 0, 0, 0, 0, 0, None, "")
    daemon.audit.sinks = (
        audit_pb2.AuditSink(
            name="n", type="t", required=True, state="failing", sent_records=1, filtered_records=2, lag_records=3,
            lag_seconds=4.5, retries=5, failures=6, lost_records=7, refused_records=8, last_error="e",
            last_error_at=moment,
        ),
    )  # fmt: skip
    assert client.audit_sinks() == (AuditSink("n", "t", True, "failing", 1, 2, 3, 4.5, 5, 6, 7, 8, "e", when, None),)
    assert client.audit_key() == AuditKey(daemon.audit.public_key_pem, "9" * 64)
