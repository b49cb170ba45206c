"""What happened: frozen, past tense, with units in the names. Times are Unix seconds."""

from __future__ import annotations

from typing import ClassVar

import attrs

__all__ = [
    "AdapterFailed",
    "CallbackFailed",
    "ConfigModelMissed",
    "ConfigReloadFailed",
    "ConfigReloaded",
    "ContextReduced",
    "Event",
    "GatewayStarted",
    "GatewayStopped",
    "ModelAdded",
    "ModelChanged",
    "ModelPullFailed",
    "ModelRemoved",
    "OrphanLeft",
    "OrphanStopped",
    "RequestFinished",
    "ServerAdopted",
    "ServerEvicted",
    "ServerFailed",
    "ServerReady",
    "ServerStarted",
    "ServerStopped",
    "ServerUnhealthy",
    "TelemetryFailed",
    "WarmUpFailed",
]


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened at ``at``; ``name`` is its literal in logs."""

    name: ClassVar[str] = "event"
    at: float


@attrs.frozen(kw_only=True)
class AdapterFailed(Event):
    """A plug-in that was asked for is broken, or failed while it was left; the rest goes on."""

    name: ClassVar[str] = "adapter.failed"
    group: str
    adapter_name: str
    reason: str


@attrs.frozen(kw_only=True)
class CallbackFailed(Event):
    """A callback of the program that uses gglib raised; the rest goes on."""

    name: ClassVar[str] = "callback.failed"
    callback: str
    reason: str


@attrs.frozen(kw_only=True)
class ContextReduced(Event):
    """A server is started with less context than its model has: there is no memory for more."""

    name: ClassVar[str] = "server.context_reduced"
    model_name: str
    context_size: int
    full_context_size: int | None


@attrs.frozen(kw_only=True)
class WarmUpFailed(Event):
    """A model that should be loaded at the start was not; the others are."""

    name: ClassVar[str] = "model.warmup_failed"
    model_name: str
    reason: str


@attrs.frozen(kw_only=True)
class ModelAdded(Event):
    """A model entered the catalog."""

    name: ClassVar[str] = "model.added"
    model_id: int
    model_name: str


@attrs.frozen(kw_only=True)
class ModelChanged(Event):
    """A model of the catalog is another: its names, tags, settings, profiles or files."""

    name: ClassVar[str] = "model.changed"
    model_id: int
    model_name: str


@attrs.frozen(kw_only=True)
class ModelRemoved(Event):
    """A model left the catalog."""

    name: ClassVar[str] = "model.removed"
    model_id: int
    model_name: str


@attrs.frozen(kw_only=True)
class ModelPullFailed(Event):
    """A model could not be fetched; what came of it is kept, and its next pull goes on."""

    name: ClassVar[str] = "model.pull_failed"
    pull_id: str
    repository: str
    reason: str


@attrs.frozen(kw_only=True)
class ServerStarted(Event):
    """A server's process exists; it is not ready yet."""

    name: ClassVar[str] = "server.started"
    server_id: str
    model_name: str
    pid: int | None
    port: int


@attrs.frozen(kw_only=True)
class ServerReady(Event):
    """A server answers; ``load_s`` after its process was asked for."""

    name: ClassVar[str] = "server.ready"
    server_id: str
    model_name: str
    load_s: float


@attrs.frozen(kw_only=True)
class ServerStopped(Event):
    """A server was asked to end, and has."""

    name: ClassVar[str] = "server.stopped"
    server_id: str
    model_name: str
    stop_s: float


@attrs.frozen(kw_only=True)
class ServerFailed(Event):
    """A server ended, or was ended, against its owner's wish."""

    name: ClassVar[str] = "server.failed"
    server_id: str
    model_name: str
    reason: str


@attrs.frozen(kw_only=True)
class ServerUnhealthy(Event):
    """A ready server did not answer three times in a row; it is ended."""

    name: ClassVar[str] = "server.unhealthy"
    server_id: str
    model_name: str
    reason: str


@attrs.frozen(kw_only=True)
class ServerEvicted(Event):
    """A server that was ready is gone, and its memory free."""

    name: ClassVar[str] = "server.evicted"
    server_id: str
    model_name: str
    device: str
    reason: str


@attrs.frozen(kw_only=True)
class ServerAdopted(Event):
    """A gateway took over a ready server that it had not started."""

    name: ClassVar[str] = "server.adopted"
    server_id: str
    model_name: str
    pid: int | None


@attrs.frozen(kw_only=True)
class OrphanLeft(Event):
    """A process bears a server's id and began at another time than is on record: left alone."""

    name: ClassVar[str] = "server.orphan_left"
    server_id: str
    model_name: str
    pid: int | None


@attrs.frozen(kw_only=True)
class OrphanStopped(Event):
    """A server whose owner is gone was found and ended."""

    name: ClassVar[str] = "server.orphan_stopped"
    server_id: str
    model_name: str


@attrs.frozen(kw_only=True)
class RequestFinished(Event):
    """A request of a client's is over, however it went. Only told if ``access_log`` is set."""

    name: ClassVar[str] = "request.finished"
    request_id: str | None
    route: str
    model_name: str
    status: int
    streamed: bool = False
    complete: bool = True
    """Whether the client got all of the answer."""
    queue_wait_s: float = 0.0
    first_byte_s: float | None = None
    duration_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    client: str | None


@attrs.frozen(kw_only=True)
class GatewayStarted(Event):
    """The gateway accepts connections."""

    name: ClassVar[str] = "gateway.started"
    address: str


@attrs.frozen(kw_only=True)
class GatewayStopped(Event):
    """The gateway has let its streams end and closed."""

    name: ClassVar[str] = "gateway.stopped"
    address: str


@attrs.frozen(kw_only=True)
class TelemetryFailed(Event):
    """Traces or metrics could not be sent; requests are none the worse for it."""

    name: ClassVar[str] = "telemetry.failed"
    reason: str


@attrs.frozen(kw_only=True)
class ConfigModelMissed(Event):
    """The settings name a model that is not there; it counts when there is one."""

    name: ClassVar[str] = "config.model_missed"
    key: str
    model_name: str
    reason: str


@attrs.frozen(kw_only=True)
class ConfigReloaded(Event):
    """The gateway has read its settings anew and works by them."""

    name: ClassVar[str] = "config.reloaded"
    changed: tuple[str, ...]
    at_next_start: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ConfigReloadFailed(Event):
    """The settings that the gateway has read anew are no good; it goes on by the old ones."""

    name: ClassVar[str] = "config.reload_failed"
    reason: str
