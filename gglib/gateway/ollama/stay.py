"""How long a model is to stay, for the sake of a request."""

from __future__ import annotations

import attrs

from gglib.domain.model import Model
from gglib.gateway.ollama.durations import keep_alive_s
from gglib.services.routing.router import Lease, Router

__all__ = ["Stay"]


@attrs.frozen
class Stay:
    """How long a request wants its model to stay; said of each server that it gets."""

    router: Router
    model: Model
    keep_alive: float | str | None
    ttl_s: float | None

    @classmethod
    def of(cls, router: Router, model: Model, keep_alive: float | str | None) -> Stay:
        """Return the wish of a request; raises ``InvalidRequest`` if it is none."""
        ttl_s = None if keep_alive is None else keep_alive_s(keep_alive)
        return cls(router, model, keep_alive, ttl_s)

    @property
    def asks_to_go(self) -> bool:
        """Whether the model is to go as soon as it idles."""
        return self.keep_alive is not None and self.ttl_s == 0

    def say(self, _lease: Lease | None = None) -> None:
        """Tell the router."""
        if self.keep_alive is not None:
            self.router.set_ttl(self.model, self.ttl_s)
