"""What the gateway's own routes answer, as types: mypy holds the handlers to them, and the
OpenAPI document shows them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from gglib.domain.pull import PullState
from gglib.services.routing.explain import Explanation
from gglib.services.routing.state import Closing, ResidentPhase

__all__ = [
    "Alive",
    "Cancelled",
    "Download",
    "Downloads",
    "ErrorAnswer",
    "ErrorObject",
    "ModelFacts",
    "ModelList",
    "ModelObject",
    "Pinned",
    "PoolServer",
    "PoolView",
    "Queue",
    "Ready",
    "Reloaded",
    "Running",
    "RunningServer",
    "Story",
    "Tally",
    "Unloaded",
    "Waiter",
]

_Device = Annotated[str, Meta(description="Where most of it is")]
_Needs = Annotated[dict[str, int], Meta(description="What it is held to need, in bytes, by device")]
_Observed = Annotated[
    int | None,
    Meta(description="The most of the machine's own memory that it was seen to have"),
]
_Pinned = Annotated[bool, Meta(description="Whether it is kept in memory once it is there")]
_TtlLeft = Annotated[
    float | None, Meta(description="Seconds until it goes if nobody uses it; null: it stays")
]
_Requests = Annotated[int, Meta(description="How many it was given")]


class ErrorObject(TypedDict):
    """OpenAI's error."""

    message: Annotated[str, Meta(description="What happened, to which thing, and what to do next")]
    type: Annotated[str, Meta(examples=["invalid_request_error"])]
    param: Annotated[str | None, Meta(description="The field of the request that is at fault")]
    code: Annotated[str | None, Meta(examples=["model_not_found"])]


class ErrorAnswer(TypedDict):
    """Every error outside Ollama's API, whoever is at fault."""

    error: ErrorObject


class Alive(TypedDict):
    """The gateway is alive."""

    status: Literal["ok"]


class Ready(TypedDict):
    """The gateway takes requests."""

    status: Literal["ready"]


class ModelFacts(TypedDict):
    """What gglib knows of a model besides."""

    state: Annotated[
        str,
        Meta(
            description="Of its servers, the one that is best off",
            extra_json_schema={"enum": ["stopped", *ResidentPhase]},
        ),
    ]
    aliases: list[str]
    profiles: Annotated[list[str], Meta(description="Names with other sampling parameters")]
    capabilities: list[str]
    context_size: Annotated[int | None, Meta(description="In tokens; null: unknown")]
    size_bytes: int


class ModelObject(TypedDict):
    """OpenAI's model object."""

    id: Annotated[str, Meta(description="The name that requests say in `model`")]
    object: Literal["model"]
    created: Annotated[int, Meta(description="Unix seconds")]
    owned_by: Literal["gglib"]
    gglib: ModelFacts


class ModelList(TypedDict):
    """OpenAI's list of models."""

    object: Literal["list"]
    data: list[ModelObject]


class RunningServer(TypedDict):
    """A server that is in memory, or on its way there. Null: there is none yet, or unknown."""

    model: str
    state: ResidentPhase
    in_flight: Annotated[int, Meta(description="Requests that it works on")]
    queued: Annotated[int, Meta(description="Requests that wait for its model")]
    server_id: str | None
    pid: int | None
    port: int | None
    runner: str | None
    engine: str | None
    started_at: Annotated[float | None, Meta(description="Unix seconds")]
    load_s: Annotated[float | None, Meta(description="How long its load took")]
    requests: _Requests
    device: _Device
    memory_bytes: _Needs
    memory_observed_bytes: _Observed
    slots_total: Annotated[int | None, Meta(description="Requests that it answers at once")]
    context_size: Annotated[int | None, Meta(description="Tokens that one request may have")]
    pinned: _Pinned
    closing: Annotated[Closing | None, Meta(description="Why it takes no more requests")]
    ttl_left_s: _TtlLeft


class Running(TypedDict):
    """What is in memory, or on its way there."""

    running: list[RunningServer]


class Unloaded(TypedDict):
    """All servers of the model are gone."""

    model: str
    state: Literal["stopped"]


class Pinned(TypedDict):
    """Whether the model is pinned now."""

    model: str
    pinned: bool


class Waiter(TypedDict):
    """A request that waits."""

    position: Annotated[int, Meta(description="How many are before it")]
    model: str
    priority: int
    waited_s: float


class Queue(TypedDict):
    """Who waits, in the order in which they stand."""

    queue: list[Waiter]


class PoolServer(TypedDict):
    """A server of the pool."""

    model: str
    runner: Annotated[str | None, Meta(description="Where it runs")]
    device: _Device
    state: ResidentPhase
    pinned: _Pinned
    ttl_left_s: _TtlLeft
    requests: _Requests
    memory_bytes: _Needs
    memory_observed_bytes: _Observed
    failed_health_checks: Annotated[int, Meta(description="In a row")]


class Tally(TypedDict):
    """What has happened since the gateway began."""

    hits: Annotated[int, Meta(description="Requests whose model was ready")]
    misses: int
    hit_rate: Annotated[float, Meta(description="hits / (hits + misses); 0 if there were none")]
    loads: int
    failures: Annotated[int, Meta(description="Loads that failed")]
    evictions: Annotated[dict[str, int], Meta(description="By reason")]


class PoolView(TypedDict):
    """What is in memory, what there is room for, and what has happened."""

    residents: list[PoolServer]
    budgets_bytes: Annotated[
        dict[str, int], Meta(description="What models may need together, by device")
    ]
    metrics: Tally


class Story(TypedDict):
    """Why a model is in memory, was evicted, or waits."""

    model: str
    story: Annotated[Explanation | None, Meta(description="Null: nobody has asked for it yet")]


class Reloaded(TypedDict):
    """Keys of the settings that are others now."""

    changed: Annotated[list[str], Meta(description="That hold from now on")]
    at_next_start: Annotated[list[str], Meta(description="That hold from the next start on")]
    doubts: Annotated[list[str], Meta(description="What is allowed, and may not be meant")]


class Download(TypedDict):
    """A pull, at one moment."""

    id: str
    state: PullState
    repository: str
    quantization: str
    revision: Annotated[str, Meta(description="The commit that it is fetched from")]
    model: Annotated[str, Meta(description="What it is called here")]
    updates: Annotated[bool, Meta(description="Whether a model that is here gets newer files")]
    files: list[str]
    done_bytes: int
    kept_bytes: Annotated[int, Meta(description="Of those, what an earlier try had fetched")]
    total_bytes: int
    note: Annotated[str | None, Meta(description="What it waits for, if it waits")]
    error: str | None
    error_kind: str | None
    created_at: Annotated[float, Meta(description="Unix seconds")]
    ended_at: float | None


class Downloads(TypedDict):
    """Pulls, the oldest first."""

    downloads: list[Download]


class Cancelled(TypedDict):
    """A pull that was given up, or had ended."""

    id: str
    state: PullState
