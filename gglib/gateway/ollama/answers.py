"""What the routes under ``/api`` answer, as types, for the OpenAPI document.

Source: ollama, docs/api.md and api/types.go, v0.12.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

__all__ = [
    "AnswerMessage",
    "ChatAnswer",
    "EmbedAnswer",
    "EmbeddingsAnswer",
    "GenerateAnswer",
    "ListedModel",
    "LoadedModel",
    "ModelDetails",
    "OllamaError",
    "RunningModels",
    "ShowAnswer",
    "TagList",
    "Version",
]

_DATE_TIME = {"format": "date-time"}
_Ns = Annotated[int, Meta(description="Nanoseconds")]
_Time = Annotated[str, Meta(extra_json_schema=_DATE_TIME)]
_ModelAsSaid = Annotated[str, Meta(description="As the request said it")]


class OllamaError(TypedDict):
    """Every error of Ollama's API; that of a stream that has begun is its last line."""

    error: str


class Version(TypedDict):
    """Which Ollama this is like, and which gglib it is."""

    version: Annotated[str, Meta(description="Of Ollama, whose API this is")]
    gglib_version: str


class ModelDetails(TypedDict):
    """What is known of a model's file; an empty text: unknown."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: Annotated[str, Meta(examples=["7.6B"])]
    quantization_level: Annotated[str, Meta(examples=["Q4_K_M"])]


class ListedModel(TypedDict):
    """A model of the catalog."""

    name: str
    model: str
    modified_at: _Time
    size: Annotated[int, Meta(description="Bytes")]
    digest: str
    details: ModelDetails


class TagList(TypedDict):
    """The models."""

    models: list[ListedModel]


class LoadedModel(TypedDict):
    """A model in memory; all its servers together."""

    name: str
    model: str
    size: Annotated[int, Meta(description="Bytes that it is held to need")]
    digest: str
    details: ModelDetails
    expires_at: Annotated[
        _Time, Meta(description="When it goes if nobody uses it; the year 2200: never")
    ]
    size_vram: Annotated[int, Meta(description="Bytes of those outside the machine's own memory")]
    context_length: int


class RunningModels(TypedDict):
    """The models in memory."""

    models: list[LoadedModel]


class ShowAnswer(TypedDict):
    """One model."""

    modelfile: str
    parameters: Annotated[str, Meta(description="Its own settings, a line for each")]
    template: str
    details: ModelDetails
    model_info: Annotated[dict[str, Any], Meta(description="By the names of GGUF's keys")]
    capabilities: Annotated[list[str], Meta(examples=[["completion", "tools"]])]
    modified_at: _Time


class _Times(TypedDict):
    """Of the last object of an answer."""

    total_duration: NotRequired[_Ns]
    load_duration: NotRequired[_Ns]
    prompt_eval_count: NotRequired[Annotated[int, Meta(description="Tokens of the prompt")]]
    prompt_eval_duration: NotRequired[_Ns]
    eval_count: NotRequired[Annotated[int, Meta(description="Tokens of the answer")]]
    eval_duration: NotRequired[_Ns]


class _Piece(_Times):
    model: _ModelAsSaid
    created_at: _Time
    done: Annotated[bool, Meta(description="Whether this is the last object")]
    done_reason: NotRequired[Literal["stop", "length", "load", "unload"]]
    logprobs: NotRequired[list[dict[str, Any]]]


class AnswerMessage(TypedDict):
    """What the model says, or the next piece of it."""

    role: Literal["assistant"]
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


class ChatAnswer(_Piece):
    """An answer to a chat; of a stream, one line of it."""

    message: AnswerMessage


class GenerateAnswer(_Piece):
    """A completion; of a stream, one line of it."""

    response: Annotated[str, Meta(description="What the model says, or the next piece of it")]
    thinking: NotRequired[str]


class EmbedAnswer(TypedDict):
    """A vector for each text."""

    model: _ModelAsSaid
    embeddings: list[list[float]]
    total_duration: _Ns
    load_duration: _Ns
    prompt_eval_count: NotRequired[Annotated[int, Meta(description="Tokens of the texts")]]


class EmbeddingsAnswer(TypedDict):
    """The vector of one text."""

    embedding: list[float]
