"""What the gateway counts of its requests: plain numbers, since everything runs in one loop.

``gglib.gateway.metrics`` makes Prometheus' metrics of them, when it is asked. A counter of
prometheus-client's takes a lock at each step, and a label look-up another: some microseconds for
each request, where the relay has twenty for all of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from time import monotonic, time
from typing import TYPE_CHECKING

from gglib.domain.events import Event, RequestFinished, ServerReady
from gglib.gateway.relay.routes import UPSTREAM_PREFIX, UPSTREAM_ROUTE
from gglib.gateway.relay.usage import NO_USAGE, usage_in
from gglib.ports.event_sink import EventSink

if TYPE_CHECKING:
    from gglib.gateway.relay.metered import MeteredTurn

__all__ = ["OTHER_ROUTE", "UNKNOWN_MODEL", "Counts", "Histogram", "Loads", "Meter", "ModelCounts"]

#: What has no route of ours, or was refused before it had one.
OTHER_ROUTE = "other"
#: What names no model of the catalog. Names that clients make up are no labels.
UNKNOWN_MODEL = "unknown"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """How many values there were up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket, not added up; the last one has no bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ModelCounts:
    """What is counted of one model, whatever the route."""

    __slots__ = ("completion_tokens", "first_byte", "prompt_tokens", "queue_wait", "speed")

    def __init__(self) -> None:
        self.queue_wait = Histogram()
        self.first_byte = Histogram()
        self.speed = Histogram(TOKENS_PER_SECOND)
        self.prompt_tokens = 0
        self.completion_tokens = 0


class Counts:
    """What is counted of one model's requests to one route."""

    __slots__ = ("model", "model_name", "route", "seconds", "statuses")

    def __init__(self, route: str, model_name: str, model: ModelCounts) -> None:
        self.route = route
        self.model_name = model_name
        self.model = model
        self.seconds = Histogram()
        self.statuses: dict[int, int] = {}


class Loads(EventSink):
    """Counts loads, and how long they took, by model."""

    __slots__ = ("by_model",)

    def __init__(self) -> None:
        self.by_model: dict[str, Histogram] = {}

    def emit(self, event: Event) -> None:
        """See ``EventSink``."""
        if isinstance(event, ServerReady):
            self.by_model.setdefault(event.model_name, Histogram()).observe(event.load_s)


class Meter:
    """One gateway's numbers."""

    def __init__(
        self,
        relayed: Iterable[str] = (),
        *,
        log: Callable[[RequestFinished], None] | None = None,
        now: Callable[[], float] = time,
        loads: Loads | None = None,
    ) -> None:
        """``relayed``: the paths of relayed routes. ``log``: is told of every request's end.

        ``now``: Unix seconds, for the log.
        """
        self.models: dict[str, ModelCounts] = {}
        self.routes: dict[str, dict[str, Counts]] = {path: {} for path in relayed}
        """By route, and in each by model."""
        self.loads = loads or Loads()
        self.bytes_to_clients = 0
        self.bytes_to_engines = 0
        self._by_target = {path.encode(): counts for path, counts in self.routes.items()}
        self._names = {path.encode(): path for path in self.routes}
        """Routes by their targets without a query."""
        self._log = log
        self._now = now

    def set_log(self, log: Callable[[RequestFinished], None] | None) -> None:
        """Have ``log`` told of every request's end from now on; ``None``: nobody."""
        self._log = log

    def granted(self, target: bytes, model_name: str, queue_wait_s: float) -> Counts:
        """Count a request that has got a server; return where the rest of it is counted."""
        by_model = self._by_target.get(target)
        counts = None if by_model is None else by_model.get(model_name)
        if counts is None:
            counts = self._counts_of(self.route_of(target), model_name)
        wait = counts.model.queue_wait
        if queue_wait_s:
            wait.observe(queue_wait_s)
        else:
            wait.counts[0] += 1
        return counts

    def route_of(self, target: bytes) -> str:
        """Return the name of the route, as which ``target`` counts."""
        if target.startswith(UPSTREAM_PREFIX):
            return UPSTREAM_ROUTE
        return self._names.get(target.partition(b"?")[0], OTHER_ROUTE)

    def know_routes(self, paths: Iterable[str]) -> None:
        """Give routes that are not relayed the names of their own where they are refused."""
        self._names.update((path.encode(), path) for path in paths if "{" not in path)

    def _counts_of(self, route: str, model_name: str) -> Counts:
        by_model = self.routes.setdefault(route, {})
        counts = by_model.get(model_name)
        if counts is None:
            model = self.models.setdefault(model_name, ModelCounts())
            counts = by_model[model_name] = Counts(route, model_name, model)
        return counts

    def ended(self, turn: MeteredTurn) -> None:
        """Count a relayed request, which is over now, however it went."""
        counts = turn.counts
        if counts is None:
            counts = self._counts_of(self.route_of(turn.route or turn.target), turn.model_name)
        model = counts.model
        status = turn.status
        statuses = counts.statuses
        statuses[status] = statuses.get(status, 0) + 1
        duration_s = 0.0
        first_byte_s = turn.first_byte_s
        if turn.began_at:
            duration_s = monotonic() - turn.began_at
            bucket = bisect_left(SECONDS, duration_s)
            seconds = counts.seconds
            seconds.counts[bucket] += 1
            seconds.total += duration_s
            if first_byte_s is None and turn.head and status < 400 and turn.counts is not None:
                # It came with the rest.
                first_byte_s = duration_s
                first_byte = model.first_byte
                first_byte.counts[bucket] += 1
                first_byte.total += duration_s
        usage = NO_USAGE
        if turn.head and turn.tells_usage:
            usage = usage_in(turn.head, turn.tail)
            if usage.prompt_tokens is not None:
                model.prompt_tokens += usage.prompt_tokens
            if usage.completion_tokens is not None:
                model.completion_tokens += usage.completion_tokens
            if usage.tokens_per_second is not None:
                model.speed.observe(usage.tokens_per_second)
        if self._log is not None:
            self._log(
                RequestFinished(
                    at=self._now(),
                    request_id=turn.request_id.decode("latin-1"),
                    route=counts.route,
                    model_name=counts.model_name,
                    status=status,
                    streamed=turn.is_event_stream,
                    complete=turn.complete,
                    queue_wait_s=turn.queue_wait_s,
                    first_byte_s=first_byte_s,
                    duration_s=duration_s,
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    client=turn.client,
                )
            )

    def answered(
        self,
        route: str,
        status: int,
        *,
        client: str | None,
        request_id: str | None = None,
        duration_s: float | None = None,
        complete: bool = True,
    ) -> None:
        """Count a request that was not relayed. ``duration_s``: ``None`` = refused unread."""
        counts = self._counts_of(route, UNKNOWN_MODEL)
        counts.statuses[status] = counts.statuses.get(status, 0) + 1
        if duration_s is not None:
            counts.seconds.observe(duration_s)
        if self._log is not None:
            self._log(
                RequestFinished(
                    at=self._now(),
                    request_id=request_id,
                    route=route,
                    model_name=UNKNOWN_MODEL,
                    status=status,
                    complete=complete,
                    duration_s=duration_s or 0.0,
                    client=client,
                )
            )
