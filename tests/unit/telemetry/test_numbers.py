from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.registry import CollectorRegistry

from sandboxd.telemetry import numbers, spans

BEGAN, NOW = 1_000, 2_000
CUMULATIVE = 2


def told(registry: CollectorRegistry) -> dict[str, Metric]:
    message = ExportMetricsServiceRequest.FromString(numbers.request_of(spans.resource("1", "n"), registry, BEGAN, NOW))
    (scope,) = message.resource_metrics[0].scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def test_a_counter_is_a_sum_that_only_grows() -> None:
    registry = CollectorRegistry()
    counter = Counter("x", "told", ["kind"], registry=registry)
    counter.labels("a").inc(3)
    counter.labels("b").inc(4)
    metric = told(registry)["x_total"]
    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality, metric.description) == (
        True,
        CUMULATIVE,
        "told",
    )
    points = {point.attributes[0].value.string_value: point for point in metric.sum.data_points}
    assert {name: point.as_double for name, point in points.items()} == {"a": 3.0, "b": 4.0}
    assert (points["a"].start_time_unix_nano, points["a"].time_unix_nano) == (BEGAN, NOW)


def test_what_goes_up_and_down_is_a_gauge() -> None:
    registry = CollectorRegistry()
    Gauge("g", "g", registry=registry).set(2.5)
    Info("build", "b", registry=registry).info({"version": "1"})
    metrics = told(registry)
    assert metrics["g"].gauge.data_points[0].as_double == 2.5
    (point,) = metrics["build_info"].gauge.data_points
    assert (point.as_double, point.attributes[0].key, point.attributes[0].value.string_value) == (1.0, "version", "1")


def test_a_histogram_counts_each_value_in_one_bucket() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", buckets=(1.0, 2.0), registry=registry)
    for value in (0.5, 1.5, 1.7, 9.0):
        histogram.observe(value)
    (point,) = told(registry)["h"].histogram.data_points
    assert list(point.explicit_bounds) == [1.0, 2.0]
    assert list(point.bucket_counts) == [1, 2, 1]
    assert (point.count, point.sum) == (4, 12.7)


def test_a_family_without_a_number_is_left_out() -> None:
    registry = CollectorRegistry()
    Counter("x", "x", ["kind"], registry=registry)
    assert told(registry) == {}
