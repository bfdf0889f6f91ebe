import asyncio
import re
from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from sandboxd.event import ApprovalRequested, ExecutionEnded, PolicyDecided, ProcessExecDecided
from sandboxd.metrics.exposition import pages, registry
from sandboxd.rollout import ShadowFacts
from sandboxd.shadow import Counts
from sandboxd.telemetry import numbers, spans
from tests.fakes.events import made, violated
from tests.unit.metrics.conftest import Node, parsed

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
_ROW = re.compile(r"\| `(?P<name>[a-z_]+)` \| (?P<kind>[a-z]+) \|(?P<labels>[a-z_` ]*)\|")
# What a text has that a client sent, or that a policy's author wrote.
FOREIGN = 'tenant-x"} 1\nsandboxd_evil 1'

Rows = dict[str, tuple[str, frozenset[str]]]


def documented() -> Rows:
    rows = map(_ROW.match, DOCUMENT.read_text().splitlines())
    return {row["name"]: (row["kind"], frozenset(re.findall("`([a-z_]+)`", row["labels"]))) for row in rows if row}


def exposed(text: str) -> Rows:
    found: Rows = {}
    for family in text_string_to_metric_families(text):
        assert family.samples, f"{family.name} has no sample here, so its labels cannot be compared"
        labels = frozenset().union(*(sample.labels for sample in family.samples)) - {"le"}
        name = family.name if family.type == "histogram" else family.samples[0].name
        found[name] = family.type, labels
    return found


async def everything(node: Node) -> str:
    """The page of a node on which each metric has a value."""
    node.become(breaker="open", breaker_trips=1, shadow=ShadowFacts("r2", Counts(), ""))
    node.sink.refusals = 1
    await node.recorder.record(violated())
    feeding = asyncio.create_task(node.feed.run())
    await node.sink.has(1)
    feeding.cancel()
    await asyncio.wait([feeding])
    await node.recorder.record(made(PolicyDecided, action="execution.start", verdict="allow"))
    return pages(registry(node.sources()))("").body.decode()


async def test_each_metric_has_its_row_and_each_row_its_metric(node: Node) -> None:
    assert exposed(await everything(node)) == documented()


async def test_a_page_is_made_anew_for_each_reader(node: Node) -> None:
    page = pages(registry(node.sources()))
    before = parsed(page("").body.decode())["sandboxd_journal_sequence", ()]
    await node.recorder.record(made(ApprovalRequested))
    assert parsed(page("").body.decode())["sandboxd_journal_sequence", ()] == before + 1


async def test_what_is_pushed_are_the_numbers_of_the_page(node: Node) -> None:
    node.tally.started = 3
    node.tally.asked.add(0.02)
    families = registry(node.sources())
    written = numbers.request_of(spans.resource("1", "n"), families, 1, 2)
    (scope,) = ExportMetricsServiceRequest.FromString(written).resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    pushed = {
        (metric.name, tuple(sorted((pair.key, pair.value.string_value) for pair in point.attributes))): point.as_double
        for metric in scope.metrics
        for point in (*metric.sum.data_points, *metric.gauge.data_points)
    }
    for key, value in parsed(pages(families)("").body.decode()).items():
        if key[0].startswith("sandboxd_") and not key[0].startswith("sandboxd_policy_decision_seconds"):
            assert pushed[key] == value, key
    (histogram,) = metrics["sandboxd_policy_decision_seconds"].histogram.data_points
    assert (histogram.count, histogram.sum) == (1, 0.02)


async def test_who_knows_openmetrics_gets_that_with_the_same_numbers(node: Node) -> None:
    text = await everything(node)
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    page = pages(registry(node.sources()))(accept)
    assert page.content_type.startswith("application/openmetrics-text; version=1")
    families = list(openmetrics_families(page.body.decode()))  # type: ignore[no-untyped-call]
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if family.name.startswith("sandboxd_")
    }
    assert samples == {key: value for key, value in parsed(text).items() if key[0].startswith("sandboxd_")}


async def test_all_others_get_the_text_and_nothing_they_wrote(node: Node) -> None:
    page = pages(registry(node.sources()))
    for accept in ("", "*/*", "text/plain; version=9; escaping=evil", "x" * 4000, "application/openmetrics;version=x"):
        assert page(accept).content_type == "text/plain; version=0.0.4; charset=utf-8"


async def test_nothing_that_a_tenant_or_a_policy_wrote_is_a_label(node: Node) -> None:
    """Whatever the events hold, the page has the same samples as with plain ones."""
    page = pages(registry(node.sources()))
    await node.recorder.record(made(PolicyDecided, action="execution.start", verdict="deny"))
    await node.recorder.record(made(ProcessExecDecided, verdict="deny"))
    before = parsed(page("").body.decode()).keys()
    for number in range(200):
        mark = f"{FOREIGN}{number}"
        common = {"tenant": mark, "subject": mark, "execution_id": mark, "policy_revision": mark}
        codes = (mark,)
        await node.recorder.record(
            made(PolicyDecided, **common, action="execution.start", verdict="deny", reason_codes=codes)
        )
        await node.recorder.record(made(ProcessExecDecided, **common, verdict="deny", image=mark, reason_codes=codes))
        await node.recorder.record(made(ExecutionEnded, **common, end_reason="EXITED", detail=mark))
    text = page("").body.decode()
    assert parsed(text).keys() == before
    assert "tenant-x" not in text and "evil" not in text
