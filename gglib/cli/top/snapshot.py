"""What a gateway looks like at one moment, put together from what its routes tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from gglib.cli.top.rates import NO_RATES, Rates

__all__ = [
    "DeviceSeen",
    "GatewaySeen",
    "ModelSeen",
    "ServerSeen",
    "Snapshot",
    "absence",
    "snapshot_of",
]


@attrs.frozen(kw_only=True)
class GatewaySeen:
    """The gateway itself."""

    address: str
    pid: int
    version: str
    started_at: float
    """Unix seconds."""


@attrs.frozen(kw_only=True)
class ServerSeen:
    """One server, or one that is coming or going."""

    model: str
    state: str
    engine: str | None
    device: str
    """That has most of it."""
    pid: int | None
    port: int | None
    memory_bytes: int
    """What it is held to need on all devices."""
    memory_observed_bytes: int | None
    in_flight: int
    slots_total: int | None
    requests: int
    ttl_left_s: float | None
    pinned: bool


@attrs.frozen(kw_only=True)
class ModelSeen:
    """One model that is in memory, is waited for, or was used lately."""

    model: str
    queued: int
    oldest_wait_s: float | None
    requests_per_s: float | None
    tokens_per_s: float | None
    first_byte_s: float | None
    """The mean of the answers that began lately."""


@attrs.frozen(kw_only=True)
class DeviceSeen:
    """What models need together of a device, and may."""

    device: str
    needed_bytes: int
    budget_bytes: int | None


@attrs.frozen(kw_only=True)
class Snapshot:
    """One look. ``rates_over_s``: how far back "lately" reaches; 0 = nothing is known yet."""

    at: float
    gateway: GatewaySeen | None
    trouble: str | None = None
    """Why nothing could be seen; then all below is empty."""
    rates_over_s: float = 0.0
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    hit_rate: float | None = None
    servers: tuple[ServerSeen, ...] = ()
    models: tuple[ModelSeen, ...] = ()
    devices: tuple[DeviceSeen, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    """What has happened since the look before, the oldest first."""

    def model(self, name: str) -> ModelSeen | None:
        """Return what is seen of a model."""
        return next((each for each in self.models if each.model == name), None)


def absence(at: float, trouble: str, gateway: GatewaySeen | None = None) -> Snapshot:
    """Return the look at a gateway that cannot be seen."""
    return Snapshot(at=at, gateway=gateway, trouble=trouble)


def snapshot_of(
    *,
    at: float,
    gateway: GatewaySeen,
    running: Sequence[Mapping[str, Any]],
    queue: Sequence[Mapping[str, Any]],
    pool: Mapping[str, Any],
    rates: Rates,
    events: Iterable[dict[str, Any]] = (),
) -> Snapshot:
    """Return the look that ``/running``, ``/admin/queue`` and ``/admin/pool`` give together."""
    servers = tuple(_server(each) for each in running)
    waits: dict[str, list[float]] = {}
    for each in queue:
        waits.setdefault(each["model"], []).append(each["waited_s"])
    names = dict.fromkeys([*(each.model for each in servers), *waits, *rates.by_model])
    return Snapshot(
        at=at,
        gateway=gateway,
        rates_over_s=rates.over_s,
        requests_per_s=rates.requests_per_s,
        tokens_per_s=rates.tokens_per_s,
        hit_rate=pool["metrics"]["hit_rate"],
        servers=servers,
        models=tuple(_model(name, waits.get(name, []), rates) for name in names),
        devices=_devices(running, pool["budgets_bytes"]),
        events=tuple(events),
    )


def _server(told: Mapping[str, Any]) -> ServerSeen:
    return ServerSeen(
        model=told["model"],
        state=told["state"],
        engine=told["engine"],
        device=told["device"],
        pid=told["pid"],
        port=told["port"],
        memory_bytes=sum(told["memory_bytes"].values()),
        memory_observed_bytes=told["memory_observed_bytes"],
        in_flight=told["in_flight"],
        slots_total=told["slots_total"],
        requests=told["requests"],
        ttl_left_s=told["ttl_left_s"],
        pinned=told["pinned"],
    )


def _model(name: str, waits: Sequence[float], rates: Rates) -> ModelSeen:
    lately = rates.by_model.get(name, NO_RATES if rates.over_s else None)
    return ModelSeen(
        model=name,
        queued=len(waits),
        oldest_wait_s=max(waits, default=None),
        requests_per_s=None if lately is None else lately.requests_per_s,
        tokens_per_s=None if lately is None else lately.tokens_per_s,
        first_byte_s=None if lately is None else lately.first_byte_s,
    )


def _devices(
    running: Sequence[Mapping[str, Any]], budgets: Mapping[str, int]
) -> tuple[DeviceSeen, ...]:
    needed = dict.fromkeys(budgets, 0)
    for each in running:
        for device, size in each["memory_bytes"].items():
            needed[device] = needed.get(device, 0) + size
    return tuple(
        DeviceSeen(device=name, needed_bytes=size, budget_bytes=budgets.get(name))
        for name, size in needed.items()
    )
