"""The gateway's metrics as OpenTelemetry has them: the names and labels of ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family

from gglib import __version__

__all__ = ["metrics_data"]

_SINCE_THE_START = AggregationTemporality.CUMULATIVE


def metrics_data(
    families: Iterable[Family], resource: Resource, *, started_ns: int, now_ns: int
) -> MetricsData:
    """Return all metrics, counted from ``started_ns`` to ``now_ns`` (Unix nanoseconds)."""
    metrics = [
        Metric(
            name=family.name,
            description=family.documentation,
            unit=None,
            data=_data(family, started_ns, now_ns),
        )
        for family in families
        if family.samples
    ]
    scope = ScopeMetrics(InstrumentationScope("gglib", __version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _data(family: Family, started_ns: int, now_ns: int) -> Sum | Gauge | Histogram:
    if family.type == "histogram":
        return Histogram(list(_histogram_points(family, started_ns, now_ns)), _SINCE_THE_START)
    points = [
        NumberDataPoint(sample.labels, started_ns, now_ns, sample.value)
        for sample in family.samples
    ]
    if family.type == "counter":
        return Sum(points, _SINCE_THE_START, is_monotonic=True)
    return Gauge(points)


def _histogram_points(family: Family, started_ns: int, now_ns: int) -> Iterator[HistogramDataPoint]:
    """Yield a point for each set of labels; buckets are no longer added up."""
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", None)
        key = tuple(labels.items())
        if bound is not None:
            buckets.setdefault(key, []).append((float(bound), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    for key, cumulated in buckets.items():
        counts = [int(count) for _, count in cumulated]
        yield HistogramDataPoint(
            attributes=dict(key),
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            count=counts[-1],
            sum=sums[key],
            bucket_counts=[
                after - before for before, after in zip([0, *counts], counts, strict=False)
            ],
            explicit_bounds=[bound for bound, _ in cumulated[:-1]],
            # Optional on the wire, and unknown here.
            min=None,  # type: ignore[arg-type]
            max=None,  # type: ignore[arg-type]
        )
