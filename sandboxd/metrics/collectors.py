"""What Prometheus is told, family by family: each collector reads numbers that are there anyway, when it is asked.

Label values come from closed sets, and from the daemon's own configuration: never an id, a tenant, or a text of theirs.
Put together by `exposition`; each family has its row in docs/metrics.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sandboxd.admission import Admission
from sandboxd.analysis.analyser import OUTCOMES
from sandboxd.approval.office import Approvals
from sandboxd.audit.feed import Feed
from sandboxd.audit.recorder import Recorder
from sandboxd.metrics.tally import APPROVALS, END_REASONS, FAILURES, OTHER, REFUSALS, Tally
from sandboxd.policy.opa_breaker import State
from sandboxd.rollout import PolicyFacts
from sandboxd.rpc.server import Server

if TYPE_CHECKING:
    from sandboxd.telemetry.exporter import Exporter

BREAKER = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
MAX_REVISION_CHARS = 128  # a remote policy names its own


@dataclass(frozen=True, slots=True, eq=False)
class Build(Collector):
    version: str
    mode: str

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "sandboxd_build", "This daemon, and how it was started", {"version": self.version, "mode": self.mode}
        )


@dataclass(frozen=True, slots=True, eq=False)
class Policy(Collector):
    facts: Callable[[], PolicyFacts]
    tally: Tally

    def collect(self) -> Iterator[Metric]:
        facts, tally = self.facts(), self.tally
        yield InfoMetricFamily(
            "sandboxd_policy",
            "The policy that decides",
            {"engine": facts.engine, "revision": facts.revision[:MAX_REVISION_CHARS]},
        )
        yield _gauge("sandboxd_policy_reload_failed", "1: the last reload was wrong", bool(facts.last_error))
        breaker = GaugeMetricFamily("sandboxd_policy_breaker_state", "0 closed, 1 half open, 2 open")
        trips = CounterMetricFamily("sandboxd_policy_breaker_trips", "How often the circuit breaker opened")
        if facts.breaker:
            breaker.add_metric([], BREAKER[State(facts.breaker)])
            trips.add_metric([], facts.breaker_trips)
        yield breaker
        yield trips
        labels = ["action", "verdict", "remembered"]
        decisions = CounterMetricFamily("sandboxd_policy_decisions", "Decisions on record", labels=labels)
        for (action, verdict, remembered), count in tally.decisions.items():
            decisions.add_metric([action, str(verdict), "true" if remembered else "false"], count)
        yield decisions
        yield _counter("sandboxd_policy_failures", "Denies that no policy gave", "reason", FAILURES, tally.failures)
        took = HistogramMetricFamily("sandboxd_policy_decision_seconds", "Time until an engine that was asked answered")
        took.add_metric([], list(tally.asked.cumulative()), tally.asked.total_seconds)
        yield took
        shadow = CounterMetricFamily("sandboxd_policy_shadow_decisions", "Decisions of the shadow", labels=["result"])
        if facts.shadow is not None:
            counts = facts.shadow.counts
            for result in ("compared", "differed", "failed", "dropped"):
                shadow.add_metric([result], getattr(counts, result))
        yield shadow


@dataclass(frozen=True, slots=True, eq=False)
class Executions(Collector):
    admission: Admission
    slots: int
    stock: Callable[[], int]
    tally: Tally

    def collect(self) -> Iterator[Metric]:
        tally = self.tally
        yield _gauge("sandboxd_executions_running", "Executions that hold a slot", self.admission.running)
        yield _gauge("sandboxd_execution_slots", "Executions that may run at a time", self.slots)
        yield _gauge("sandboxd_stock_sandboxes", "Empty sandboxes that are ready", self.stock())
        yield _gauge("sandboxd_draining", "1: no execution is taken any more", self.admission.draining)
        yield CounterMetricFamily("sandboxd_executions_started", "Sandboxes made for an execution", tally.started)
        yield _counter("sandboxd_executions_ended", "Ends", "end_reason", (*END_REASONS, OTHER), tally.ended)
        yield _counter("sandboxd_executions_refused", "Refused", "reason", (*REFUSALS, OTHER), tally.refused)


@dataclass(frozen=True, slots=True, eq=False)
class Waiting(Collector):
    approvals: Approvals
    tally: Tally

    def collect(self) -> Iterator[Metric]:
        yield _gauge("sandboxd_approvals_pending", "Approvals that wait for people", self.approvals.pending)
        yield _counter("sandboxd_approvals", "Approvals", "outcome", APPROVALS.values(), self.tally.approvals)


@dataclass(frozen=True, slots=True, eq=False)
class Analyses(Collector):
    outcomes: Mapping[str, int]

    def collect(self) -> Iterator[Metric]:
        yield _counter("sandboxd_analyses", "Sources that were to be analysed", "outcome", OUTCOMES, self.outcomes)


@dataclass(frozen=True, slots=True, eq=False)
class Journal(Collector):
    recorder: Recorder

    def collect(self) -> Iterator[Metric]:
        recorder = self.recorder
        yield _gauge("sandboxd_journal_sequence", "Number of the last record", recorder.readable.link.seq)
        yield _gauge("sandboxd_journal_available", "0: the last record could not be written", recorder.available())
        yield CounterMetricFamily("sandboxd_journal_written_bytes", "Bytes of records", recorder.written_bytes)
        yield CounterMetricFamily("sandboxd_journal_failures", "Writes that failed", recorder.failures)


@dataclass(frozen=True, slots=True, eq=False)
class Sinks(Collector):
    feeds: Sequence[Feed]

    def collect(self) -> Iterator[Metric]:
        labels = ["sink"]
        info = GaugeMetricFamily("sandboxd_sink_info", "The sinks", labels=[*labels, "type", "required"])
        accepting = GaugeMetricFamily("sandboxd_sink_accepting", "0: it does not take what it is sent", labels=labels)
        sent = CounterMetricFamily("sandboxd_sink_sent_events", "Events that it took", labels=labels)
        filtered = CounterMetricFamily("sandboxd_sink_filtered_events", "Events its filter left out", labels=labels)
        lag = GaugeMetricFamily("sandboxd_sink_lag_events", "Events that it has not taken yet", labels=labels)
        lag_seconds = GaugeMetricFamily("sandboxd_sink_lag_seconds", "Age of the oldest of them", labels=labels)
        failures = CounterMetricFamily("sandboxd_sink_failures", "Attempts that it did not accept", labels=labels)
        failed_at = GaugeMetricFamily("sandboxd_sink_last_failure_timestamp_seconds", "The last one", labels=labels)
        lost = CounterMetricFamily("sandboxd_sink_lost_events", "Events gone before it took them", labels=labels)
        refused = CounterMetricFamily("sandboxd_sink_refused_events", "Events that it refused for good", labels=labels)
        for feed in self.feeds:
            status = feed.status
            info.add_metric([status.name, status.type, str(status.required).lower()], 1)
            accepting.add_metric([status.name], status.state == "ok")
            sent.add_metric([status.name], status.sent_records)
            filtered.add_metric([status.name], status.filtered_records)
            lag.add_metric([status.name], status.lag_records)
            lag_seconds.add_metric([status.name], status.lag_seconds)
            failures.add_metric([status.name], status.retries)
            if status.retries:
                failed_at.add_metric([status.name], status.last_error_at)
            lost.add_metric([status.name], status.lost_records)
            refused.add_metric([status.name], status.refused_records)
        yield from (info, accepting, sent, filtered, lag, lag_seconds, failures, failed_at, lost, refused)


@dataclass(frozen=True, slots=True, eq=False)
class Calls(Collector):
    server: Server

    def collect(self) -> Iterator[Metric]:
        server = self.server
        yield _gauge("sandboxd_rpc_connections", "Connections of callers", server.connections)
        yield CounterMetricFamily(
            "sandboxd_rpc_connections_dropped", "Connections that there was no room for", server.dropped_connections
        )
        codes = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
        yield _counter("sandboxd_rpc_errors", "Calls that ended in an error", "code", codes, server.errors)


@dataclass(frozen=True, slots=True, eq=False)
class Telemetry(Collector):
    """Of what goes to an OpenTelemetry collector: executions of the one signal, readings of the other."""

    exporter: "Exporter"

    def collect(self) -> Iterator[Metric]:
        told = self.exporter
        yield _gauge("sandboxd_telemetry_waiting", "Executions whose traces are not sent yet", told.waiting)
        yield _counter("sandboxd_telemetry_sent", "Taken by the collector", "signal", told.SIGNALS, told.sent)
        yield _counter("sandboxd_telemetry_dropped", "Never sent", "signal", told.SIGNALS, told.dropped)
        yield _counter("sandboxd_telemetry_failures", "Attempts that failed", "signal", told.SIGNALS, told.failures)


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, float(value))


def _counter(name: str, told: str, label: str, values: Iterable[str], counts: Mapping[str, int]) -> Metric:
    """One for each value of a closed set, so that a rate is there from the first event on."""
    family = CounterMetricFamily(name, told, labels=[label])
    for value in values:
        family.add_metric([value], counts.get(value, 0))
    return family
