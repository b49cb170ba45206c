"""What the gateway's own routes answer when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from gglib.errors import GglibError, InvalidRequest
from gglib.gateway.ollama.errors import PREFIX
from gglib.gateway.ollama.routes import refuse_route
from gglib.gateway.problems import answer_for

__all__ = ["exception_handlers"]


def exception_handlers(log_error: Callable[[BaseException], None]) -> ExceptionHandlersMap:
    """Return what answers by the class of what was raised; ``log_error`` is told of bugs."""

    def on_bug(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        log_error(error)
        return _answer(GglibError("internal error; the gateway's log has the trace"))

    return {GglibError: _on_gglib_error, HTTPException: _on_http_error, Exception: on_bug}


def _on_gglib_error(_request: Request[Any, Any, Any], error: GglibError) -> Response[bytes]:
    return _answer(error)


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    answer = _refusal(request, error)
    if (methods := (error.headers or {}).get("allow")) is not None:
        # HEAD is GET without a body, to every route.
        answer.headers["allow"] = methods.replace("GET", "GET, HEAD")
    return answer


def _refusal(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if request.scope["path"].startswith(PREFIX):
        return refuse_route(request, error)
    if error.status_code == 404:
        path = request.scope["path"][:200]
        reason = f"nothing is at {request.method} {path}; GET /v1/models lists the models"
        return _answer(InvalidRequest(reason, None, "not_found"), 404)
    return _answer(InvalidRequest(error.detail, None), error.status_code)


def _answer(error: GglibError, status: int | None = None) -> Response[bytes]:
    answer = answer_for(error, status=status)
    return Response(
        answer.body,
        status_code=answer.status,
        headers=dict(answer.headers),
        media_type=MediaType.JSON,
    )
