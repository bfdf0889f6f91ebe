"""Each collector on the part of the daemon that it reads."""

import asyncio
from pathlib import Path

import grpc
import pytest

from sandboxd.analysis.commandline import Code
from sandboxd.audit.cursor import Cursor, save
from sandboxd.audit.feed import Feed
from sandboxd.errors import AuditUnavailable, Overloaded
from sandboxd.event import ApprovalGranted, ExecutionEnded, ExecutionRefused, ExecutionStarted, PolicyDecided
from sandboxd.metrics.collectors import (
    MAX_REVISION_CHARS,
    Analyses,
    Build,
    Calls,
    Executions,
    Journal,
    Policy,
    Sinks,
    Telemetry,
    Waiting,
)
from sandboxd.model import EndReason, Verdict
from sandboxd.rollout import ShadowFacts
from sandboxd.shadow import Counts
from tests.fakes.events import made, violated
from tests.fakes.sink import SETTINGS
from tests.unit.audit.test_journal import file_size_limit
from tests.unit.metrics.conftest import Node, Told
from tests.unit.rpc.conftest import raw


def test_build_names_version_and_mode() -> None:
    assert Told(Build("1.2.3", "root"))("sandboxd_build_info", version="1.2.3", mode="root") == 1


async def test_policy_is_named_by_engine_and_revision_and_no_longer_than_that(node: Node) -> None:
    told = Told(Policy(lambda: node.facts, node.tally))
    assert told("sandboxd_policy_info", engine="rego", revision="r1") == 1
    node.become(revision='"\n' * MAX_REVISION_CHARS)  # whoever runs a remote policy writes it
    assert told("sandboxd_policy_info", engine="rego", revision='"\n' * (MAX_REVISION_CHARS // 2)) == 1


async def test_a_reload_that_was_wrong_shows_until_one_is_right(node: Node) -> None:
    told = Told(Policy(lambda: node.facts, node.tally))
    assert told("sandboxd_policy_reload_failed") == 0
    node.become(last_error="no", last_error_at=1.0)
    assert told("sandboxd_policy_reload_failed") == 1


@pytest.mark.parametrize(("breaker", "value"), [("closed", 0), ("half_open", 1), ("open", 2)])
async def test_the_breaker_is_a_number_and_what_has_none_says_nothing(breaker: str, value: int, node: Node) -> None:
    told = Told(Policy(lambda: node.facts, node.tally))
    assert told("sandboxd_policy_breaker_state") is told("sandboxd_policy_breaker_trips_total") is None
    node.become(engine="opa", breaker=breaker, breaker_trips=3)
    assert (told("sandboxd_policy_breaker_state"), told("sandboxd_policy_breaker_trips_total")) == (value, 3)


async def test_decisions_and_failures_are_told_as_they_went_on_record(node: Node) -> None:
    told = Told(Policy(lambda: node.facts, node.tally))
    assert told("sandboxd_policy_failures_total", reason="policy_timeout") == 0
    for _ in range(2):
        await node.recorder.record(
            made(PolicyDecided, action="execution.start", verdict=Verdict.DENY, reason_codes=("policy_timeout",))
        )
    deny = {"action": "execution.start", "verdict": "deny", "remembered": "false"}
    assert told("sandboxd_policy_decisions_total", **deny) == 2
    assert told("sandboxd_policy_failures_total", reason="policy_timeout") == 2
    assert told("sandboxd_policy_failures_total", reason="policy_malformed") == 0


async def test_the_time_of_decisions_is_a_histogram(node: Node) -> None:
    told = Told(Policy(lambda: node.facts, node.tally))
    node.tally.asked.add(0.003)
    node.tally.asked.add(7.0)
    assert told("sandboxd_policy_decision_seconds_bucket", le="0.0025") == 0
    assert told("sandboxd_policy_decision_seconds_bucket", le="0.005") == 1
    assert told("sandboxd_policy_decision_seconds_bucket", le="+Inf") == 2
    assert told("sandboxd_policy_decision_seconds_count") == 2
    assert told("sandboxd_policy_decision_seconds_sum") == pytest.approx(7.003)


async def test_the_shadow_is_told_where_there_is_one(node: Node) -> None:
    told = Told(Policy(lambda: node.facts, node.tally))
    assert told("sandboxd_policy_shadow_decisions_total", result="compared") is None
    node.become(shadow=ShadowFacts("r2", Counts(4, 3, 2, 1), ""))
    results = ("compared", "differed", "failed", "dropped")
    assert [told("sandboxd_policy_shadow_decisions_total", result=result) for result in results] == [4, 3, 2, 1]


async def test_executions_are_told_from_admission_to_their_end(node: Node) -> None:
    told = Told(Executions(node.admission, 2, lambda: 3, node.tally))
    with node.admission.slot("local"), node.admission.slot("local"):
        assert (told("sandboxd_executions_running"), told("sandboxd_execution_slots")) == (2, 2)
        assert told("sandboxd_stock_sandboxes") == 3
        with pytest.raises(Overloaded), node.admission.slot("local"):
            pass
    await node.recorder.record(made(ExecutionStarted))
    await node.recorder.record(made(ExecutionEnded, end_reason=EndReason.WALL_TIMEOUT))
    await node.recorder.record(made(ExecutionRefused, reason="slots"))
    await node.recorder.record(made(ExecutionRefused, reason="never heard of"))
    assert (told("sandboxd_executions_running"), told("sandboxd_executions_started_total")) == (0, 1)
    assert told("sandboxd_executions_ended_total", end_reason="WALL_TIMEOUT") == 1
    assert told("sandboxd_executions_ended_total", end_reason="EXITED") == 0
    assert told("sandboxd_executions_refused_total", reason="slots") == 1
    assert told("sandboxd_executions_refused_total", reason="other") == 1


async def test_a_node_that_drains_says_so(node: Node) -> None:
    told = Told(Executions(node.admission, 2, lambda: 3, node.tally))
    assert told("sandboxd_draining") == 0
    node.admission.drain()
    assert told("sandboxd_draining") == 1


async def test_approvals_are_pending_until_they_are_decided(node: Node) -> None:
    told = Told(Waiting(node.office.approvals, node.tally))
    parked = await node.office.settle()
    assert told("sandboxd_approvals_pending") == 1
    await node.office.approve(parked.approval_id)
    assert told("sandboxd_approvals_pending") == 0
    assert told("sandboxd_approvals_total", outcome="granted") == 0
    await node.recorder.record(made(ApprovalGranted))
    assert told("sandboxd_approvals_total", outcome="granted") == 1


async def test_analyses_are_told_by_what_came_of_them(node: Node) -> None:
    told = Told(Analyses(node.analyser.outcomes))
    for code in (Code("python", "x = 1"), Code("python", "x = 1"), Code("python", "x = ("), Code("", "?")):
        await node.analyser.analyse(code, "local")
    await node.analyser.analyse(Code("python", "\ud800"), "local")
    found = {labels[0][1]: value for (_, labels), value in told.samples().items() if value}
    assert found == {"whole": 1, "remembered": 1, "partly": 1, "unknown_language": 1, "not_text": 1}


async def test_the_journal_tells_what_it_wrote_and_could_not_write(node: Node, tmp_path: Path) -> None:
    told = Told(Journal(node.recorder))
    for _ in range(3):
        await node.recorder.record(violated())
    written = sum(path.stat().st_size for path in (tmp_path / "node" / "journal").glob("*.jsonl"))
    assert told("sandboxd_journal_written_bytes_total") == written > 0
    with file_size_limit(written), pytest.raises(AuditUnavailable):
        await node.recorder.record(violated())
    assert (told("sandboxd_journal_sequence"), told("sandboxd_journal_failures_total")) == (
        4,
        1,
    )  # the first is a checkpoint
    assert told("sandboxd_journal_available") == 0
    assert told("sandboxd_journal_written_bytes_total") == written
    await node.recorder.record(violated())
    assert told("sandboxd_journal_available") == 1


async def test_sinks_tell_what_they_took_and_refused(node: Node) -> None:
    told = Told(Sinks((node.feed,)))
    for _ in range(3):
        await node.recorder.record(violated())
    count = node.recorder.readable.link.seq
    assert told("sandboxd_sink_lag_events", sink="fake") == count
    assert told("sandboxd_sink_last_failure_timestamp_seconds", sink="fake") is None
    assert told("sandboxd_sink_info", sink="fake", type="fake", required="false") == 1
    node.sink.refusals = 1
    task = asyncio.create_task(node.feed.run())
    await node.sink.has(count)
    task.cancel()
    await asyncio.wait([task])
    assert told("sandboxd_sink_sent_events_total", sink="fake") == count
    assert (told("sandboxd_sink_lag_events", sink="fake"), told("sandboxd_sink_lag_seconds", sink="fake")) == (0, 0)
    assert told("sandboxd_sink_failures_total", sink="fake") == 1
    assert told("sandboxd_sink_last_failure_timestamp_seconds", sink="fake") == 1234.5
    assert told("sandboxd_sink_accepting", sink="fake") == 1


async def test_a_sink_that_is_ahead_of_a_journal_that_lost_its_tail_lags_nothing(node: Node, tmp_path: Path) -> None:
    save(tmp_path / "cursors", "fake", Cursor(1, 0, 7))
    ahead = Feed(node.recorder, node.sink, SETTINGS, tmp_path / "cursors")
    assert Told(Sinks((ahead,)))("sandboxd_sink_lag_events", sink="fake") == 0


async def test_calls_tell_their_errors_by_status(node: Node) -> None:
    told = Told(Calls(node.served.server))
    assert told("sandboxd_rpc_errors_total", code="INVALID_ARGUMENT") == 0
    with pytest.raises(grpc.aio.AioRpcError):
        await raw(node.served.channel, "/sandboxd.v1.SandboxService/Run", b"\xff")
    assert told("sandboxd_rpc_errors_total", code="INVALID_ARGUMENT") == 1
    assert told("sandboxd_rpc_errors_total", code="OK") is None
    assert (told("sandboxd_rpc_connections"), told("sandboxd_rpc_connections_dropped_total")) == (1, 0)


async def test_what_a_collector_of_telemetry_took_and_never_got_is_told(node: Node) -> None:
    told = Told(Telemetry(node.exporter))
    assert told("sandboxd_telemetry_dropped_total", signal="traces") == 0
    node.exporter.sent["traces"], node.exporter.dropped["metrics"], node.exporter.failures["traces"] = 3, 2, 1
    assert told("sandboxd_telemetry_sent_total", signal="traces") == 3
    assert told("sandboxd_telemetry_dropped_total", signal="metrics") == 2
    assert told("sandboxd_telemetry_failures_total", signal="traces") == 1
    assert told("sandboxd_telemetry_waiting") == 0
