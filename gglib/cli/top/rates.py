"""How much happens in a second: the difference of two looks at a gateway's counters."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from types import MappingProxyType

import attrs

__all__ = ["NO_RATES", "ModelRates", "Rates", "RecentCounters"]

#: How far back rates look: one second has too few requests to tell.
WINDOW_S = 10.0
#: What names no model in the gateway's metrics.
_UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class ModelRates:
    """Of one model."""

    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0
    """Tokens of answers, counted when an answer ends."""
    first_byte_s: float | None = None
    """The mean, of answers that began; ``None``: none did."""


NO_RATES = ModelRates()


def _frozen(value: Mapping[str, ModelRates]) -> Mapping[str, ModelRates]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class Rates:
    """Of all models; ``over_s`` seconds of them, 0 after one look alone."""

    over_s: float = 0.0
    by_model: Mapping[str, ModelRates] = attrs.field(factory=dict, converter=_frozen, hash=False)
    """Models of which something was counted."""

    @property
    def requests_per_s(self) -> float | None:
        """Of all models together."""
        if not self.over_s:
            return None
        return sum(each.requests_per_s for each in self.by_model.values())

    @property
    def tokens_per_s(self) -> float | None:
        """Of all models together."""
        if not self.over_s:
            return None
        return sum(each.tokens_per_s for each in self.by_model.values())


@attrs.frozen
class _Counters:
    requests: Counter[str]
    tokens: Counter[str]
    begun: Counter[str]
    begun_after_s: Counter[str]


class RecentCounters:
    """The looks of the latest ten seconds, and one before."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, _Counters]] = deque()

    def take(self, now_s: float, metrics: str) -> Rates:
        """Return the rates up to ``now_s`` (monotonic), by what ``/metrics`` tells then."""
        looks = self._looks
        looks.append((now_s, _read(metrics)))
        while len(looks) > 2 and looks[1][0] <= now_s - WINDOW_S:
            looks.popleft()
        (then_s, before), (_, after) = looks[0], looks[-1]
        over_s = now_s - then_s
        if over_s <= 0:
            return Rates()
        names = [*after.requests, *after.begun]
        return Rates(
            over_s=over_s,
            by_model={
                name: _between(name, before, after, over_s)
                for name in dict.fromkeys(names)
                if name != _UNKNOWN
            },
        )


def _between(name: str, before: _Counters, after: _Counters, over_s: float) -> ModelRates:
    begun = after.begun[name] - before.begun[name]
    after_s = after.begun_after_s[name] - before.begun_after_s[name]
    return ModelRates(
        requests_per_s=(after.requests[name] - before.requests[name]) / over_s,
        tokens_per_s=(after.tokens[name] - before.tokens[name]) / over_s,
        first_byte_s=after_s / begun if begun > 0 else None,
    )


def _read(metrics: str) -> _Counters:
    """Return the counters that matter here, by model."""
    from prometheus_client.parser import text_string_to_metric_families

    found = _Counters(Counter(), Counter(), Counter(), Counter())
    counters = {
        "gglib_requests_total": found.requests,
        "gglib_completion_tokens_total": found.tokens,
        "gglib_first_byte_seconds_count": found.begun,
        "gglib_first_byte_seconds_sum": found.begun_after_s,
    }
    wanted = tuple(f"{name}{{" for name in counters)
    # Only their lines: those of buckets, which are most, take a hundred times as long.
    lines = "\n".join(line for line in metrics.splitlines() if line.startswith(wanted))
    for family in text_string_to_metric_families(lines + "\n"):
        for sample in family.samples:
            counters[sample.name][sample.labels["model"]] += sample.value  # type: ignore[assignment]
    return found
