"""What the scheduler knows of a model, and the rules it plays by: values, made beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from gglib.domain.model import Model

__all__ = ["ModelTerms", "Policy", "Spot", "terms_of"]

_NOTHING: Mapping[str, int] = MappingProxyType({})
_BYTES_PER_LOAD_SECOND = 2e9
#: A model's ``ttl_s`` that stands for the one of all models.
_GLOBAL_TTL = -1


@attrs.frozen(kw_only=True)
class Spot:
    """What a server of a model needs on one of its runners, in bytes by device."""

    runner: str | None = None
    memory: Mapping[str, int] = attrs.field(default=_NOTHING, hash=False)
    context_size: int | None = None
    """Tokens of context, where the model says none and has more than there is room for."""


@attrs.frozen(kw_only=True)
class ModelTerms:
    """Everything static about a model. Times in seconds, sizes in bytes."""

    model_id: int
    name: str
    limit: int | None = None
    """How many requests a server of it may have in flight; ``None`` = as many as it has slots."""
    ttl_s: float | None = None
    """Idle time after which it is unloaded; ``None`` = never."""
    pinned: bool = False
    """Neither evicted nor unloaded for idleness."""
    priority: int = 0
    """Of its requests, unless they say otherwise; higher goes first."""
    size_bytes: int = 0
    memory: Mapping[str, int] = attrs.field(default=_NOTHING, hash=False)
    """What a server of it needs, by device."""
    context_size: int | None = None
    """Tokens of context that a server is started with, for what it needs to be ``memory``;
    ``None``: as the model says."""
    replicas: int = 1
    """The most servers of it at once."""
    runner: str | None = None
    """Where ``memory`` and ``context_size`` are what they are: the first of its runners."""
    elsewhere: tuple[ModelTerms, ...] = ()
    """The same model on its other runners, in the order in which they are tried."""

    @property
    def spots(self) -> tuple[ModelTerms, ...]:
        """The terms on each of its runners, the one to be tried first before the others."""
        return (self, *self.elsewhere)

    def at(self, runner: str | None) -> ModelTerms | None:
        """Return the terms on that runner, if it is one of the model's."""
        return next((each for each in self.spots if each.runner == runner), None)

    def with_spot(self, spot: Spot) -> ModelTerms:
        """Return the terms with others on one of the runners."""
        own, *others = (
            attrs.evolve(each, memory=spot.memory, context_size=spot.context_size)
            if each.runner == spot.runner
            else each
            for each in self.spots
        )
        return attrs.evolve(own, elsewhere=tuple(others))

    @property
    def expected_load_s(self) -> float:
        """How long a load may take, before one was measured: 1 s, and 1 s per 2 GB."""
        return 1.0 + self.size_bytes / _BYTES_PER_LOAD_SECOND


@attrs.frozen(kw_only=True)
class Policy:
    """How the scheduler weighs waiting against swapping."""

    queue_limit: int = 256
    """How many requests may wait, all models together."""
    patience_factor: float = 8.0
    max_wait_s: float = 120.0
    max_drain_s: float | None = None
    """How long a server that must go may end what it has in flight; ``None`` = as it needs."""
    min_size: int = 0
    """So many residents, the most recently used, outlive their idle time."""
    finish_loads: bool = False
    """Whether a start goes on that nobody waits for any more."""

    def patience_s(self, swap_cost_s: float) -> float:
        """Return how long a request waits before a swap of that cost is worth it."""
        return min(self.max_wait_s, max(1.0, self.patience_factor * swap_cost_s))


def terms_of(
    model: Model,
    *,
    ttl_s: float | None = None,
    spots: Sequence[Spot] = (Spot(),),
) -> ModelTerms:
    """Return what the scheduler must know of ``model``.

    ``ttl_s`` is the one of all models; ``spots``: what a server of it needs on each of its
    runners, in the order in which they are tried.
    """
    wish = model.defaults
    own_ttl_s = ttl_s if wish.ttl_s is None or wish.ttl_s == _GLOBAL_TTL else wish.ttl_s
    first = ModelTerms(
        model_id=model.id,
        name=model.name,
        limit=wish.concurrency_limit,
        ttl_s=own_ttl_s or None,
        pinned=wish.pinned,
        priority=wish.priority,
        size_bytes=model.size_bytes,
        replicas=wish.replicas,
    )
    own, *others = (
        attrs.evolve(first, runner=spot.runner, memory=spot.memory, context_size=spot.context_size)
        for spot in spots
    )
    return attrs.evolve(own, elsewhere=tuple(others))
