"""The routes of Ollama's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gglib.gateway.ollama.answers import (
    ChatAnswer,
    EmbedAnswer,
    EmbeddingsAnswer,
    GenerateAnswer,
    OllamaError,
    RunningModels,
    ShowAnswer,
    TagList,
    Version,
)
from gglib.gateway.ollama.requests import (
    ChatRequest,
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
    ShowRequest,
)
from gglib.gateway.openapi.operations import Body, Operation, Reply, Shape
from gglib.gateway.openapi.own import NO_SUCH_MODEL, NOT_LOADED

__all__ = ["OPERATIONS"]

_JSON, _LINES = "application/json", "application/x-ndjson"
_INVALID = "The body is not what the route takes, or asks for what cannot be had"
_REFUSALS = {
    400: _INVALID,
    404: NO_SUCH_MODEL,
    429: "Too many requests wait already; `retry-after` says when to come again",
    502: "The engine died twice over this request, or said nothing for too long",
    503: NOT_LOADED,
}
#: Of routes that ask one.
_ENGINES = {
    "default": Reply("What the engine refuses, with its own status", (Body(_JSON, OllamaError),))
}
_NEEDS_MODEL = {"required": ["model"]}
_NEEDS_A_NAME = {
    "anyOf": [
        {"required": [name], "properties": {name: {"minLength": 1}}} for name in ("model", "name")
    ]
}
_LINE = {"type": "string", "contentMediaType": _JSON}


def _get(path: str, name: str, summary: str, of: Any, about: str = "") -> Operation:
    return Operation(
        method="get",
        path=path,
        name=name,
        tag="Ollama",
        summary=summary,
        about=about,
        shape=Shape.OLLAMA,
        replies={"200": Reply("Done", (Body(_JSON, of),))},
    )


def _post(
    path: str,
    name: str,
    summary: str,
    asks: Any,
    says: Any,
    example: dict[str, Any],
    *,
    about: str = "",
    streams: bool = False,
    refusals: dict[int, str] = _REFUSALS,
    more_replies: Mapping[str, Reply] = _ENGINES,
    more: Mapping[str, Any] = _NEEDS_MODEL,
) -> Operation:
    bodies = [Body(_JSON, says)]
    if streams:
        about = f"{about}Streams, with an object on each line, unless `stream` is false. "
        bodies.append(Body(_LINES, _LINE))
    return Operation(
        method="post",
        path=path,
        name=name,
        tag="Ollama",
        summary=summary,
        about=about.strip(),
        shape=Shape.OLLAMA,
        body=(Body(_JSON, asks, example, more),),
        replies={"200": Reply("Done", tuple(bodies)), **more_replies},
        refusals=refusals,
    )


_HELLO = [{"role": "user", "content": "Hello!"}]

OPERATIONS = (
    _post(
        "/api/chat",
        "ollamaChat",
        "Answer a chat",
        ChatRequest,
        ChatAnswer,
        {"model": "qwen", "messages": _HELLO, "stream": False},
        about="Without messages: loads the model, or lets it go where `keep_alive` is 0. ",
        streams=True,
    ),
    _post(
        "/api/generate",
        "ollamaGenerate",
        "Complete a prompt",
        GenerateRequest,
        GenerateAnswer,
        {"model": "qwen", "prompt": "Hello!", "stream": False},
        about="Without a prompt: loads the model, or lets it go where `keep_alive` is 0. ",
        streams=True,
    ),
    _post(
        "/api/embed",
        "ollamaEmbed",
        "Make vectors of texts",
        EmbedRequest,
        EmbedAnswer,
        {"model": "embedder", "input": ["a text"]},
    ),
    _post(
        "/api/embeddings",
        "ollamaEmbeddings",
        "Make a vector of one text",
        EmbeddingsRequest,
        EmbeddingsAnswer,
        {"model": "embedder", "prompt": "a text"},
        about="As older programs ask for it.",
    ),
    _get("/api/tags", "ollamaTags", "List the models", TagList),
    _post(
        "/api/show",
        "ollamaShow",
        "Show one model",
        ShowRequest,
        ShowAnswer,
        {"model": "qwen"},
        about="`name` is an older spelling of `model`.",
        refusals={400: _INVALID, 404: NO_SUCH_MODEL},
        more_replies={},
        more=_NEEDS_A_NAME,
    ),
    _get("/api/ps", "ollamaPs", "List the models in memory", RunningModels),
    _get("/api/version", "ollamaVersion", "Tell which Ollama this is like", Version),
)
