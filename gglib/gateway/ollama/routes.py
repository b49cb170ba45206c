"""The routes under ``/api``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from gglib import __version__
from gglib.domain.access import Grant
from gglib.errors import GglibError, InvalidRequest
from gglib.gateway.ollama.answers import RunningModels, TagList, Version
from gglib.gateway.ollama.api import OllamaApi
from gglib.gateway.ollama.errors import refusal_of
from gglib.gateway.ollama.exchange import Exchange
from gglib.gateway.ollama.views import listed, running
from gglib.gateway.relay.shared import RelayShared
from gglib.services.models import ModelService
from gglib.services.routing.router import Router as ModelRouter

__all__ = ["ollama_routes", "refuse_route"]

#: Programs look here for what they may ask of Ollama: the version whose API this is.
_SPEAKS = "0.12.11"


def ollama_routes(
    models: ModelService,
    router: ModelRouter,
    *,
    shared: RelayShared,
    log_error: Callable[[BaseException], None],
) -> Router:
    """Return Ollama's routes, whose errors are told as Ollama tells them."""
    api = OllamaApi(models, router, shared=shared, log_error=log_error)

    @get("/api/version", sync_to_thread=False)
    def version() -> Version:
        """Tell which Ollama this is like, and which gglib it is."""
        return {"version": _SPEAKS, "gglib_version": __version__}

    @get("/api/tags")
    async def tags(request: Request[Any, Grant, Any]) -> TagList:
        """List the models."""
        allows = request.auth.allows
        return await listed(model for model in await models.list() if allows(model.name))

    @get("/api/ps", sync_to_thread=False)
    def ps(request: Request[Any, Grant, Any]) -> RunningModels:
        """List the models in memory."""
        allows = request.auth.allows
        return running(view for view in router.residents() if allows(view.model.name))

    @post("/api/show", status_code=200)
    async def show() -> ASGIApp:
        """Show one model."""
        return _exchange(api.show)

    @post("/api/chat", status_code=200)
    async def chat() -> ASGIApp:
        """Answer a chat."""
        return _exchange(api.chat)

    @post("/api/generate", status_code=200)
    async def generate() -> ASGIApp:
        """Complete a prompt."""
        return _exchange(api.generate)

    @post("/api/embed", status_code=200)
    async def embed() -> ASGIApp:
        """Make vectors of texts."""
        return _exchange(api.embed)

    @post("/api/embeddings", status_code=200)
    async def embeddings() -> ASGIApp:
        """Make a vector of one text, as older programs ask for it."""
        return _exchange(api.embeddings)

    def on_error(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        if not isinstance(error, GglibError):
            log_error(error)
        return _response(error)

    return Router(
        path="/",
        route_handlers=[
            version,
            tags,
            ps,
            show,
            chat,
            generate,
            embed,
            embeddings,
        ],
        exception_handlers={Exception: on_error},
    )


def refuse_route(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Return the answer where there is no such route here, or not with that method."""
    what = f"{request.method} {request.scope['path'][:200]}"
    reason = (
        f"gglib has no {what}; models are added and removed with `gglib model`"
        if error.status_code == 404
        else f"{what}: {error.detail}"
    )
    return _response(InvalidRequest(reason), error.status_code)


def _response(error: Exception, status: int | None = None) -> Response[bytes]:
    refusal = refusal_of(error, status=status)
    return Response(refusal.body, status_code=refusal.status, headers=dict(refusal.headers))


def _exchange(how: Callable[[Exchange], Awaitable[None]]) -> ASGIApp:
    """Return what answers below litestar, which would hold answers, and outlive clients."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await how(Exchange(scope, receive, send))

    return app
