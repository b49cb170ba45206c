"""The routes by which models are fetched."""

from __future__ import annotations

from gglib.gateway.answers import Cancelled, Downloads
from gglib.gateway.openapi.operations import Access, Body, Operation, Parameter, Reply

__all__ = ["OPERATIONS"]

_JSON = "application/json"
_TAG = "Administration"
_ASKED = {
    "type": "object",
    "required": ["model"],
    "additionalProperties": False,
    "properties": {
        "model": {
            "type": "string",
            "description": "`OWNER/NAME`, and `:QUANTIZATION` if not the best that fits",
        },
        "revision": {"type": ["string", "null"], "description": "Null: the newest"},
        "name": {"type": ["string", "null"], "description": "What requests will call it"},
        "mmproj": {"type": ["boolean", "null"], "description": "Whether its projector comes, too"},
    },
}

OPERATIONS = (
    Operation(
        method="post",
        path="/admin/models/pull",
        name="pullModel",
        tag=_TAG,
        summary="Fetch a model from the hub",
        about="An event whenever something has changed, named for the pull's state (`queued`, "
        "`running`; the last is `done`, `failed`, `cancelled`, or `current` if there is nothing "
        "to do), with the fields of a download. Whoever leaves is not waited for: it goes on.",
        access=Access.ADMIN,
        body=(Body(_JSON, _ASKED, {"model": "bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M"}),),
        replies={"200": Reply("Until it has ended", (Body("text/event-stream"),))},
        refusals={
            400: "It names no repository, or no name that is free",
            403: "The hub does not let it go without a token (`hub_access_denied`)",
            404: "There is no such repository, or quantization",
            409: "The name is taken, or another pull makes that model",
            502: "The hub's answer makes no sense (`hub_answer_wrong`)",
            503: "The hub does not answer (`hub_unavailable`), or this gateway fetches nothing",
            507: "There is no room for it on the disk (`no_space`)",
        },
    ),
    Operation(
        method="get",
        path="/admin/models/downloads",
        name="listDownloads",
        tag=_TAG,
        summary="List what is queued, under way, and has ended lately",
        access=Access.ADMIN,
        replies={"200": Reply("The oldest first", (Body(_JSON, Downloads),))},
    ),
    Operation(
        method="delete",
        path="/admin/models/downloads/{pull_id}",
        name="cancelDownload",
        tag=_TAG,
        summary="Give up a pull",
        about="What came of it is deleted. One that has ended stays as it is.",
        access=Access.ADMIN,
        parameters=(
            Parameter(name="pull_id", about="As listed", schema={"type": "string", "minLength": 1}),
        ),
        replies={"200": Reply("What has become of it", (Body(_JSON, Cancelled),))},
        refusals={404: "There is none of that id (`pull_not_found`)"},
    ),
)
