"""What the gateway answers itself: models, health, what runs, and the admin's few verbs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Litestar, Request, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery

from gglib.domain.access import Grant
from gglib.domain.model import Model
from gglib.errors import ConfigurationError, InvalidRequest, NotRunning
from gglib.gateway.allowed import allowed_model
from gglib.gateway.answers import (
    Alive,
    ModelList,
    ModelObject,
    Pinned,
    PoolView,
    Queue,
    Ready,
    Reloaded,
    Running,
    RunningServer,
    Story,
    Unloaded,
)
from gglib.gateway.app_errors import exception_handlers
from gglib.gateway.ollama.routes import ollama_routes
from gglib.gateway.openapi import routes as describing
from gglib.gateway.pulls import PULL_ROUTES, Pulling
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.sight import ROUTES, Sight
from gglib.services.models import ModelService
from gglib.services.pool import Pool
from gglib.services.routing.router import ResidentView, Router
from gglib.settings.difference import Difference

__all__ = ["Parts", "Reload", "make_app"]


#: Reads the settings anew, and tells what they differ in.
Reload = Callable[[], Awaitable[Difference]]


class Parts(msgspec.Struct, frozen=True):
    """What the handlers work with."""

    models: ModelService
    router: Router
    pool: Pool
    log_error: Any
    sight: Sight
    shared: RelayShared
    reload: Reload
    pulling: Pulling


def _parts(state: State) -> Parts:
    parts: Parts = state["parts"]
    return parts


def _model_object(model: Model, states: dict[int, str]) -> ModelObject:
    """Return OpenAI's model object, with what gglib knows besides under ``gglib``."""
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.added_at),
        "owned_by": "gglib",
        "gglib": {
            "state": states.get(model.id, "stopped"),
            "aliases": list(model.aliases),
            "profiles": [f"{model.name}:{profile.name}" for profile in model.profiles],
            "capabilities": sorted(model.facts.capabilities),
            "context_size": model.defaults.server.get("context_size") or model.facts.context_length,
            "size_bytes": model.size_bytes,
        },
    }


def _running_object(view: ResidentView) -> RunningServer:
    server = view.server
    return {
        "model": view.model.name,
        "state": view.phase,
        "in_flight": view.in_flight,
        "queued": view.queued,
        "server_id": server.server_id if server else None,
        "pid": server.handle.pid if server else None,
        "port": server.handle.port if server else None,
        "runner": view.runner,
        "engine": server.engine if server else None,
        "started_at": server.handle.started_at if server else None,
        "load_s": server.load_s if server else None,
        "requests": view.requests,
        "device": view.device,
        "memory_bytes": dict(view.memory),
        "memory_observed_bytes": view.memory_observed_bytes,
        "slots_total": server.slots_total if server else None,
        "context_size": server.context_size if server else None,
        "pinned": view.pinned,
        "closing": view.closing,
        "ttl_left_s": view.ttl_left_s,
    }


def _states(router: Router) -> dict[int, str]:
    states: dict[int, str] = {}
    for view in router.residents():
        # Of a model with several servers, a ready one tells.
        if states.get(view.model.id) != "ready":
            states[view.model.id] = str(view.phase)
    return states


@get("/health", sync_to_thread=False)
def health() -> Alive:
    """Tell that the gateway is alive."""
    return {"status": "ok"}


@get("/ready", sync_to_thread=False)
def ready() -> Ready:
    """Tell that the gateway takes requests; it listens no more when it does not."""
    return {"status": "ready"}


@get("/v1/models")
async def list_models(state: State, request: Request[Any, Grant, Any]) -> ModelList:
    """List the models, in OpenAI's form: those that whoever asks may use."""
    parts = _parts(state)
    states = _states(parts.router)
    allows = request.auth.allows
    models = [model for model in await parts.models.list() if allows(model.name)]
    data = [_model_object(model, states) for model in models]
    return {"object": "list", "data": data}


@get("/v1/models/{name:path}")
async def show_model(
    state: State, request: Request[Any, Grant, Any], name: FromPath[str]
) -> ModelObject:
    """Show one model, by its name or an alias."""
    parts = _parts(state)
    resolved = await allowed_model(parts.models, name.removeprefix("/"), request.auth)
    return _model_object(resolved.model, _states(parts.router))


@get("/running", sync_to_thread=False)
def running(state: State) -> Running:
    """List what is in memory, or on its way there."""
    return {"running": [_running_object(view) for view in _parts(state).router.residents()]}


@post("/admin/models/{target:path}", status_code=200)
async def act_on_model(
    state: State, target: FromPath[str], force: FromQuery[bool] = False
) -> Running | Unloaded | Pinned:
    """Do something with a model: ``/admin/models/NAME/VERB``.

    ``load`` answers when it is ready. ``unload`` lets what is in flight end, or cuts it with
    ``?force=true``, and answers when the server is gone; ``drain`` serves whoever waits, too.
    ``pin`` keeps it in memory once it is there; ``unpin`` no longer.
    """
    parts = _parts(state)
    name, _, verb = target.removeprefix("/").rpartition("/")
    model = (await parts.models.resolve(name)).model
    if verb == "load":
        await parts.router.load(model)
        return {"running": [_running_object(view) for view in parts.router.residents()]}
    if verb in ("unload", "drain"):
        drains = verb == "drain"
        going = parts.router.drain(model) if drains else parts.router.unload(model, cut=force)
        if not going:
            raise NotRunning(model.name)
        await parts.router.wait_unloaded(model)
        return {"model": model.name, "state": "stopped"}
    if verb in ("pin", "unpin"):
        await parts.router.set_pinned(model, verb == "pin")
        return {"model": model.name, "pinned": verb == "pin"}
    known = "load, unload, drain, pin and unpin are"
    raise InvalidRequest(f"'{verb}' is not something to do with a model; {known}", None)


@get("/admin/queue", sync_to_thread=False)
def queue(state: State) -> Queue:
    """List who waits, in the order in which they stand."""
    return {
        "queue": [
            {
                "position": each.position,
                "model": each.model.name,
                "priority": each.priority,
                "waited_s": each.waited_s,
            }
            for each in _parts(state).router.queue()
        ]
    }


@get("/admin/pool", sync_to_thread=False)
def show_pool(state: State) -> PoolView:
    """Show what is in memory, what there is room for, and what has happened, counted."""
    pool = _parts(state).pool
    tally = pool.tally
    return {
        "residents": [
            {
                "model": view.model.name,
                "runner": view.runner,
                "device": view.device,
                "state": view.phase,
                "pinned": view.pinned,
                "ttl_left_s": view.ttl_left_s,
                "requests": view.requests,
                "memory_bytes": dict(view.memory),
                "memory_observed_bytes": view.memory_observed_bytes,
                "failed_health_checks": pool.strikes(view.server) if view.server else 0,
            }
            for view in pool.residents
        ],
        "budgets_bytes": pool.budgets,
        "metrics": {
            "hits": tally.hits,
            "misses": tally.misses,
            "hit_rate": tally.hit_rate,
            "loads": tally.loads,
            "failures": tally.failures,
            "evictions": dict(tally.evictions),
        },
    }


@get("/admin/why/{name:path}")
async def why(state: State, name: FromPath[str]) -> Story:
    """Tell why a model is in memory, why it was evicted, or why it waits."""
    parts = _parts(state)
    model = (await parts.models.resolve(name.removeprefix("/"))).model
    return {"model": model.name, "story": parts.router.why(model)}


@post("/admin/config/reload", status_code=200)
async def reload_config(state: State) -> Reloaded:
    """Read the settings anew, and take up what has changed; all of it, or nothing."""
    try:
        found = await _parts(state).reload()
    except ConfigurationError as error:
        # The file is at fault, which whoever asks can mend; nothing here has failed.
        raise InvalidRequest(str(error), None, "configuration_error") from None
    return {
        "changed": list(found.now),
        "at_next_start": list(found.at_next_start),
        "doubts": list(found.doubts),
    }


def make_app(parts: Parts) -> Litestar:
    """Return the ASGI application. It has no doors of its own: the connection has admitted."""
    return Litestar(
        route_handlers=[
            health,
            ready,
            list_models,
            show_model,
            running,
            act_on_model,
            queue,
            show_pool,
            why,
            *ROUTES,
            *describing.ROUTES,
            *PULL_ROUTES,
            ollama_routes(
                parts.models, parts.router, shared=parts.shared, log_error=parts.log_error
            ),
            reload_config,
        ],
        state=State(
            {
                "parts": parts,
                "sight": parts.sight,
                "shared": parts.shared,
                "pulling": parts.pulling,
            }
        ),
        exception_handlers=exception_handlers(parts.log_error),
        openapi_config=None,
        logging_config=None,
    )
