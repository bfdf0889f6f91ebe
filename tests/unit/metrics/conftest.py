"""A daemon's parts as metrics see them: the real ones, on a directory of their own, with nothing running."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from sandboxd.admission import Admission
from sandboxd.analysis.analyser import Analyser
from sandboxd.audit.feed import Feed
from sandboxd.audit.recorder import Recorder
from sandboxd.metrics.exposition import Sources
from sandboxd.metrics.tally import Tally
from sandboxd.rollout import PolicyFacts
from sandboxd.rpc.server import ServerConfig
from sandboxd.settings.telemetry import Otlp, Telemetry
from sandboxd.telemetry.exporter import Exporter
from tests.fakes.approvals import Office
from tests.fakes.sink import SETTINGS, FakeSink
from tests.unit.rpc.conftest import Served, serving

FACTS = PolicyFacts("rego", "r1", 0, (), 1.0, "", 0.0, None)
OTLP = Otlp(url="http://127.0.0.1:1")

Key = tuple[str, tuple[tuple[str, str], ...]]


def parsed(text: str) -> dict[Key, float]:
    """Each sample's value by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Told:
    """What one collector says, read as Prometheus would."""

    collector: Collector

    def __call__(self, name: str, **labels: str) -> float | None:
        """None: there is no such sample."""
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def samples(self) -> dict[Key, float]:
        registry = CollectorRegistry()
        registry.register(self.collector)
        return parsed(generate_latest(registry).decode())


@dataclass
class Node:
    served: Served
    office: Office
    recorder: Recorder
    sink: FakeSink
    feed: Feed
    facts: PolicyFacts = FACTS
    tally: Tally = field(default_factory=Tally)
    admission: Admission = field(default_factory=lambda: Admission(2, 60, lambda: 0.0))
    exporter: Exporter = field(default_factory=lambda: Exporter(Telemetry(otlp=OTLP), OTLP, "1.2.3", "node"))
    analyser: Analyser = field(default_factory=lambda: Analyser(deadline_seconds=60.0, wait_seconds=60.0))

    def sources(self) -> Sources:
        return Sources(
            version="1.2.3",
            mode="root",
            slots=2,
            stock=lambda: 3,
            tally=self.tally,
            policy=lambda: self.facts,
            admission=self.admission,
            approvals=self.office.approvals,
            analyser=self.analyser,
            recorder=self.recorder,
            feeds=(self.feed,),
            server=self.served.server,
            exporter=self.exporter,
        )

    def become(self, **facts: object) -> None:
        self.facts = replace(self.facts, **facts)  # type: ignore[arg-type]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    recorder = Recorder.open(tmp_path / "node", "node", "boot", "write")
    sink = FakeSink()
    feed = Feed(recorder, sink, SETTINGS, tmp_path / "cursors", sleep=lambda _: asyncio.sleep(0), clock=lambda: 1234.5)
    async with serving(ServerConfig(socket=tmp_path / "run" / "s.sock")) as served:
        whole = Node(served, Office(tmp_path / "office"), recorder, sink, feed)
        recorder.observe(whole.tally.count)
        yield whole
        await whole.analyser.close()
        await whole.exporter.close(1.0)
    await recorder.close()
