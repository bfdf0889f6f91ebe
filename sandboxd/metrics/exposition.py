"""The page that Prometheus reads, made anew for each reader from what the daemon's parts know.

Runs on the event loop, so it only reads memory and /proc/self. Made by `daemon`, served by `endpoint`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from sandboxd.admission import Admission
from sandboxd.analysis.analyser import Analyser
from sandboxd.approval.office import Approvals
from sandboxd.audit.feed import Feed
from sandboxd.audit.recorder import Recorder
from sandboxd.metrics import collectors
from sandboxd.metrics.tally import Tally
from sandboxd.rollout import PolicyFacts
from sandboxd.rpc.server import Server

if TYPE_CHECKING:
    from sandboxd.telemetry.exporter import Exporter

OPENMETRICS = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Sources:
    """`mode` is how the daemon was started, `slots` how many executions may run at a time."""

    version: str
    mode: str
    slots: int
    stock: Callable[[], int]
    tally: Tally
    policy: Callable[[], PolicyFacts]
    admission: Admission
    approvals: Approvals
    analyser: Analyser
    recorder: Recorder
    feeds: Sequence[Feed]
    server: Server
    exporter: "Exporter | None" = None


def registry(sources: Sources) -> CollectorRegistry:
    """All families, for this page and for whoever else tells them."""
    registry = CollectorRegistry()
    tally = sources.tally
    for collector in (
        collectors.Build(sources.version, sources.mode),
        collectors.Policy(sources.policy, tally),
        collectors.Executions(sources.admission, sources.slots, sources.stock, tally),
        collectors.Waiting(sources.approvals, tally),
        collectors.Analyses(sources.analyser.outcomes),
        collectors.Journal(sources.recorder),
        collectors.Sinks(sources.feeds),
        collectors.Calls(sources.server),
    ):
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    if sources.exporter is not None:
        registry.register(collectors.Telemetry(sources.exporter))
    return registry


def pages(registry: CollectorRegistry) -> Callable[[str], Page]:
    """A page for a reader that sent this `Accept`: OpenMetrics if it knows that, else Prometheus' own text."""

    def page(accept: str) -> Page:
        # The library would take version and escaping from the reader too, and repeat them in its answer.
        if OPENMETRICS in accept:
            text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
            return Page(text, openmetrics.CONTENT_TYPE_LATEST)
        return Page(generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)

    return page
