"""The numbers of /metrics as OpenTelemetry metrics: the protobuf messages of OTLP, read from the very same registry.

Keeps no numbers of its own, and the names that docs/metrics.md has. Runs on the event loop, as a reading of the page
does. Called by `exporter`.
"""

from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Sample

SCOPE = "sandboxd"
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def request_of(who: Resource, registry: CollectorRegistry, began: int, now: int) -> bytes:
    """One ExportMetricsServiceRequest. Times are Unix nanoseconds; counters count since `began`."""
    message = ExportMetricsServiceRequest()
    told = message.resource_metrics.add()
    told.resource.CopyFrom(who)
    scope = told.scope_metrics.add()
    scope.scope.name = SCOPE
    for family in registry.collect():
        if family.samples:
            scope.metrics.append(_metric(family, began, now))
    return message.SerializeToString()


def _metric(family: Family, began: int, now: int) -> Metric:
    match family.type:
        case "counter":
            counted = [sample for sample in family.samples if sample.name.endswith("_total")]
            metric = Metric(name=f"{family.name}_total", description=family.documentation)
            metric.sum.data_points.extend(_point(sample, began, now) for sample in counted)
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = _CUMULATIVE
        case "histogram":
            metric = Metric(name=family.name, description=family.documentation)
            metric.histogram.data_points.append(_histogram(family.samples, began, now))
            metric.histogram.aggregation_temporality = _CUMULATIVE
        case _:
            metric = Metric(name=family.samples[0].name, description=family.documentation)
            metric.gauge.data_points.extend(_point(sample, 0, now) for sample in family.samples)
    return metric


def _point(sample: Sample, began: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=_attributes(sample.labels),
        start_time_unix_nano=began,
        time_unix_nano=now,
        as_double=float(sample.value),
    )


def _histogram(samples: Iterable[Sample], began: int, now: int) -> HistogramDataPoint:
    """Of one without labels, as ours are. There each bucket holds those below it too, here it does not."""
    bounds: list[float] = []
    counts: list[int] = []
    below, total = 0, 0.0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            bounds.append(float(sample.labels["le"]))
            counts.append(int(sample.value) - below)
            below = int(sample.value)
        elif sample.name.endswith("_sum"):
            total = float(sample.value)
    return HistogramDataPoint(
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=below,
        sum=total,
        bucket_counts=counts,
        explicit_bounds=bounds[:-1],  # the last one is infinity
    )


def _attributes(labels: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in labels.items()]
