"""What the gateway knows of itself, as Prometheus' metrics: made when they are asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gglib import __version__
from gglib.gateway.meter import Histogram, Meter
from gglib.services.pool import Pool
from gglib.services.routing.router import ResidentView, Router

__all__ = ["CONTENT_TYPE", "Metrics", "as_text"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """Reads the parts of one gateway."""

    def __init__(self, meter: Meter, router: Router, pool: Pool) -> None:
        self._meter = meter
        self._router = router
        self._pool = pool

    def collect(self) -> list[Metric]:
        """Return every metric as it is now. Only within the gateway's loop, like all it reads."""
        return [
            *self._of_requests(),
            *self._of_models(),
            *self._of_the_relay(),
            *self._of_loads(),
            *self._of_the_pool(),
            *self._of_residents(self._router.residents()),
        ]

    def _of_requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "gglib_requests", "Requests that were answered", labels=["route", "model", "status"]
        )
        seconds = _histogram(
            "gglib_request_seconds", "From a whole request to its answer's end", "route", "model"
        )
        for route, by_model in self._meter.routes.items():
            for model, counts in by_model.items():
                for status, count in counts.statuses.items():
                    requests.add_metric([route, model, str(status)], count)
                _add(seconds, counts.seconds, route, model)
        yield from (requests, seconds)

    def _of_models(self) -> Iterator[Metric]:
        wait = _histogram("gglib_queue_wait_seconds", "From a whole request to a server", "model")
        first_byte = _histogram(
            "gglib_first_byte_seconds", "From a whole request to its answer's first byte", "model"
        )
        speed = _histogram(
            "gglib_tokens_per_second", "How fast answers were written, as engines tell", "model"
        )
        prompt = CounterMetricFamily("gglib_prompt_tokens", "Tokens read", labels=["model"])
        completion = CounterMetricFamily(
            "gglib_completion_tokens", "Tokens written", labels=["model"]
        )
        for name, model in self._meter.models.items():
            _add(wait, model.queue_wait, name)
            _add(first_byte, model.first_byte, name)
            _add(speed, model.speed, name)
            prompt.add_metric([name], model.prompt_tokens)
            completion.add_metric([name], model.completion_tokens)
        yield from (wait, first_byte, speed, prompt, completion)

    def _of_the_relay(self) -> Iterator[Metric]:
        relayed = CounterMetricFamily(
            "gglib_relay_bytes", "Bytes passed on, with their heads", labels=["direction"]
        )
        relayed.add_metric(["to_client"], self._meter.bytes_to_clients)
        relayed.add_metric(["to_engine"], self._meter.bytes_to_engines)
        yield relayed
        version = GaugeMetricFamily("gglib_build_info", "Always 1", labels=["version"])
        version.add_metric([__version__], 1)
        yield version

    def _of_loads(self) -> Iterator[Metric]:
        loads = CounterMetricFamily("gglib_loads", "Servers that became ready", labels=["model"])
        seconds = _histogram("gglib_load_seconds", "From a start to a ready server", "model")
        for name, found in self._meter.loads.by_model.items():
            loads.add_metric([name], sum(found.counts))
            _add(seconds, found, name)
        yield from (loads, seconds)
        tally = self._pool.tally
        failures = CounterMetricFamily(
            "gglib_load_failures", "Starts of servers that failed", labels=["model"]
        )
        for name, count in tally.failed.items():
            failures.add_metric([name], count)
        restarts = CounterMetricFamily(
            "gglib_server_restarts",
            "Starts in place of servers that were lost",
            labels=["model", "reason"],
        )
        for (name, reason), count in tally.restarts.items():
            restarts.add_metric([name, reason], count)
        yield from (failures, restarts)

    def _of_the_pool(self) -> Iterator[Metric]:
        tally = self._pool.tally
        yield CounterMetricFamily("gglib_swaps", "Models that took others' places", tally.swaps)
        yield CounterMetricFamily("gglib_pool_hits", "Requests that met a ready model", tally.hits)
        yield CounterMetricFamily("gglib_pool_misses", "Requests that met none", tally.misses)
        evictions = CounterMetricFamily(
            "gglib_evictions", "Servers that were ready and are gone", labels=["reason"]
        )
        for reason, count in tally.evictions.items():
            evictions.add_metric([reason], count)
        yield evictions
        budgets = GaugeMetricFamily(
            "gglib_memory_budget_bytes", "What models may need together", labels=["device"]
        )
        for device, size in self._pool.budgets.items():
            budgets.add_metric([device], size)
        yield budgets

    def _of_residents(self, residents: Sequence[ResidentView]) -> Iterator[Metric]:
        # A model that was there once keeps its zeros: a series that ends looks like a gap.
        names = {*self._meter.models, *(view.model.name for view in residents)}
        in_flight = Counter(dict.fromkeys(names, 0))
        observed: Counter[str] = Counter()
        needed: defaultdict[tuple[str, str], int] = defaultdict(int)
        states: Counter[tuple[str, str]] = Counter()
        for view in residents:
            name = view.model.name
            in_flight[name] += view.in_flight
            states[name, str(view.phase)] += 1
            observed[name] += view.memory_observed_bytes or 0
            for device, size in view.memory.items():
                needed[name, device] += size
        queued = Counter(dict.fromkeys(names, 0))
        queued.update(each.model.name for each in self._router.queue())
        yield _gauge("gglib_queue_depth", "Requests that wait", ["model"], queued)
        yield _gauge("gglib_in_flight", "Requests that servers work on", ["model"], in_flight)
        yield _gauge("gglib_residents", "Servers in memory", ["model", "state"], states)
        yield _gauge(
            "gglib_memory_needed_bytes",
            "What servers are held to need",
            ["model", "device"],
            needed,
        )
        yield _gauge(
            "gglib_memory_observed_bytes",
            "The most of the machine's own memory that servers were seen to have",
            ["model"],
            observed,
        )


def as_text(metrics: Iterable[Metric]) -> bytes:
    """Return metrics, and those of this process, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(metrics))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _histogram(name: str, what: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, what, labels=labels)


def _add(family: HistogramMetricFamily, found: Histogram, *labels: str) -> None:
    buckets = list(zip(_written(found.bounds), accumulate(found.counts), strict=True))
    family.add_metric(labels, buckets, found.total)


@cache
def _written(bounds: tuple[float, ...]) -> list[str]:
    return [*(f"{bound:g}" for bound in bounds), "+Inf"]


def _gauge(
    name: str, what: str, labels: Sequence[str], values: dict[str, int] | dict[tuple[str, str], int]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=labels)
    for key, value in values.items():
        family.add_metric([key] if isinstance(key, str) else key, value)
    return family
