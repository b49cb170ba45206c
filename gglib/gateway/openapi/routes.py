"""The routes that tell of the others: the document, the page, and what stands at ``/``."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.response import Redirect

from gglib.gateway.openapi.document import document_bytes
from gglib.gateway.openapi.page import CONTENT_SECURITY_POLICY, page_bytes
from gglib.gateway.relay.shared import RelayShared

__all__ = ["ROUTES"]

_GUARDED = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_PAGE_HEADERS = {**_GUARDED, "content-security-policy": CONTENT_SECURITY_POLICY}


@get("/docs", sync_to_thread=False)
def docs(state: State) -> Response[bytes]:
    """Show the routes as a page."""
    page = page_bytes(needs_key=_needs_key(state))
    return Response(page, media_type=MediaType.HTML, headers=_PAGE_HEADERS)


@get("/openapi.json", sync_to_thread=False)
def openapi(state: State) -> Response[bytes]:
    """Tell the routes as an OpenAPI document."""
    told = document_bytes(needs_key=_needs_key(state))
    return Response(told, media_type=MediaType.JSON, headers=_GUARDED)


@get("/", sync_to_thread=False)
def root(request: Request[Any, Any, Any]) -> Response[str]:
    """Tell that somebody is there: Ollama's programs ask before anything else."""
    headers = {"vary": "accept"}
    if "text/html" in request.headers.get("accept", ""):
        return Redirect("/docs", status_code=302, headers=headers)
    return Response("gglib is running", media_type=MediaType.TEXT, headers=headers)


ROUTES = (docs, openapi, root)


def _needs_key(state: State) -> bool:
    shared: RelayShared = state["shared"]
    return shared.doors.needs_key
