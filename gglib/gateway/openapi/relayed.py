"""The routes whose requests go to an engine: what we ask of them, and what we answer ourselves."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from gglib.gateway.openapi.operations import Access, Body, Operation, Parameter, Reply
from gglib.gateway.openapi.own import NO_SUCH_MODEL, NOT_LOADED

__all__ = ["OPERATIONS", "RelayedForm", "RelayedRequest"]

_ModelName = Annotated[
    str,
    Meta(description="A model's name, an alias, or `name:profile`", min_length=1),
]


class RelayedRequest(TypedDict):
    """What the gateway reads of a body. All other fields go to the engine as they are."""

    model: _ModelName
    stream: NotRequired[
        Annotated[bool | None, Meta(description="Whether the answer comes piece by piece")]
    ]


class RelayedForm(TypedDict):
    """What the gateway reads of a form. All other fields go to the engine as they are."""

    model: _ModelName


_REFUSALS = {
    400: "Not JSON, no `model`, or two of them; several models answer to the name",
    404: f"{NO_SUCH_MODEL}; or the engine has no such route",
    429: "Too many requests wait already (`queue_full`); `retry-after` says when to come again",
    502: "The engine died twice over this request, or said nothing for too long (`engine_died`)",
    503: NOT_LOADED,
}
_AS_IT_IS = Reply("What else the engine answers comes as it is: status, headers and body")


def _post(
    path: str,
    name: str,
    summary: str,
    whose: str,
    example: dict[str, Any],
    *,
    form: bool = False,
    answers: tuple[str, ...] = ("application/json",),
) -> Operation:
    bodies = [Body("application/json", RelayedRequest, example)]
    if form:
        bodies.insert(0, Body("multipart/form-data", RelayedForm, example))
    return Operation(
        method="post",
        path=path,
        name=name,
        tag="Inference",
        summary=summary,
        about=f"{whose} API; the model's engine answers, and is started if need be.",
        body=tuple(bodies),
        replies={
            "200": Reply("The engine's answer", tuple(Body(kind) for kind in answers)),
            "default": _AS_IT_IS,
        },
        refusals=_REFUSALS,
    )


_STREAMS = ("application/json", "text/event-stream")
_HELLO = [{"role": "user", "content": "Hello!"}]
_RANKING = {"model": "ranker", "query": "a question", "documents": ["one text", "another"]}
_SPEECH = {"model": "whisper", "file": "speech.wav"}
_PICTURE = {"model": "painter", "prompt": "a house by the sea"}

_INFERENCE = (
    _post(
        "/v1/chat/completions",
        "createChatCompletion",
        "Answer a chat",
        "OpenAI's",
        {"model": "qwen", "messages": _HELLO},
        answers=_STREAMS,
    ),
    _post(
        "/v1/completions",
        "createCompletion",
        "Complete a text",
        "OpenAI's",
        {"model": "qwen", "prompt": "Once upon a time", "max_tokens": 16},
        answers=_STREAMS,
    ),
    _post(
        "/v1/embeddings",
        "createEmbedding",
        "Make vectors of texts",
        "OpenAI's",
        {"model": "embedder", "input": ["a text"]},
    ),
    _post(
        "/v1/rerank",
        "rerank",
        "Sort texts by how well they answer a question",
        "Jina's",
        _RANKING,
    ),
    _post(
        "/v1/messages",
        "createMessage",
        "Answer a chat",
        "Anthropic's",
        {"model": "qwen", "max_tokens": 64, "messages": _HELLO},
        answers=_STREAMS,
    ),
    _post(
        "/v1/messages/count_tokens",
        "countMessageTokens",
        "Count the tokens of a chat",
        "Anthropic's",
        {"model": "qwen", "messages": _HELLO},
    ),
    _post(
        "/v1/audio/transcriptions",
        "createTranscription",
        "Write down what is said",
        "OpenAI's",
        _SPEECH,
        form=True,
        answers=("application/json", "text/plain", "text/event-stream"),
    ),
    _post(
        "/v1/audio/translations",
        "createTranslation",
        "Write down what is said, in English",
        "OpenAI's",
        _SPEECH,
        form=True,
        answers=("application/json", "text/plain"),
    ),
    _post(
        "/v1/audio/speech",
        "createSpeech",
        "Say a text",
        "OpenAI's",
        {"model": "speaker", "input": "Hello!", "voice": "alloy"},
        answers=("audio/*", "text/event-stream"),
    ),
    _post(
        "/v1/images/generations",
        "createImage",
        "Draw a picture",
        "OpenAI's",
        _PICTURE,
        answers=_STREAMS,
    ),
    _post(
        "/v1/images/edits",
        "editImage",
        "Change a picture",
        "OpenAI's",
        {**_PICTURE, "image": "house.png"},
        form=True,
        answers=_STREAMS,
    ),
    _post(
        "/completion",
        "llamaCompletion",
        "Complete a text",
        "llama-server's",
        {"model": "qwen", "prompt": "Once upon a time", "n_predict": 16},
        answers=_STREAMS,
    ),
    _post(
        "/infill",
        "llamaInfill",
        "Fill in a text between two others",
        "llama-server's",
        {"model": "coder", "input_prefix": "def add(a, b):\n", "input_suffix": "\n"},
        answers=_STREAMS,
    ),
    _post(
        "/rerank",
        "llamaRerank",
        "Sort texts by how well they answer a question",
        "llama-server's",
        _RANKING,
    ),
    _post(
        "/tokenize",
        "llamaTokenize",
        "Take a text apart into tokens",
        "llama-server's",
        {"model": "qwen", "content": "Hello!"},
    ),
    _post(
        "/detokenize",
        "llamaDetokenize",
        "Put tokens together to a text",
        "llama-server's",
        {"model": "qwen", "tokens": [9906, 0]},
    ),
    _post(
        "/apply-template",
        "llamaApplyTemplate",
        "Write a chat as the model's template has it",
        "llama-server's",
        {"model": "qwen", "messages": _HELLO},
    ),
)

_UPSTREAM_PARAMETERS = (
    Parameter(
        name="model",
        about="A model's name or an alias; it may hold slashes",
        schema={"type": "string", "minLength": 1},
        example="qwen",
    ),
    Parameter(
        name="path",
        about="A path of its server; it may hold slashes",
        schema={"type": "string"},
        example="props",
    ),
)
_READS = "Reads no body, and passes everything on. "
_READING = (
    "A request that asks for another protocol, such as a WebSocket, becomes a tunnel. "
    "`/slots` tells of others' prompts, and needs the admin's token."
)
_POSTING = "Needs the admin's token, unless `path` is one of the routes for inference."
_CHANGING = "Needs the admin's token."


def _upstream(method: str, about: str) -> Operation:
    return Operation(
        method=method,
        path="/upstream/{model}/{path}",
        name=f"{method}Upstream",
        tag="Inference",
        summary=f"{method.upper()} a path of a model's server",
        about=_READS + about,
        access=Access.KEY if method in ("get", "head", "options") else Access.ADMIN,
        parameters=_UPSTREAM_PARAMETERS,
        replies={"default": _AS_IT_IS},
        refusals={
            400: "Several models answer to the name, or the request is malformed",
            **{status: _REFUSALS[status] for status in (404, 429, 502, 503)},
        },
    )


OPERATIONS = (
    *_INFERENCE,
    _upstream("get", _READING),
    _upstream("head", _READING),
    _upstream("options", _READING),
    _upstream("post", _POSTING),
    _upstream("put", _CHANGING),
    _upstream("patch", _CHANGING),
    _upstream("delete", _CHANGING),
)
