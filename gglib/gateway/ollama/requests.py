"""What Ollama's clients send, read and checked. Fields that are not named here are ignored.

What goes on to the engine as it is (schemas, tools) is kept as its very bytes.

Source: ollama, docs/api.md and api/types.go, v0.12.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from gglib.errors import InvalidRequest

__all__ = [
    "ChatRequest",
    "EmbedRequest",
    "EmbeddingsRequest",
    "GenerateRequest",
    "Message",
    "ShowRequest",
    "TalkRequest",
    "read",
]


_NULL = msgspec.Raw(b"null")


class Function(msgspec.Struct):
    """A function that the model calls, with its arguments as an object."""

    name: str
    arguments: dict[str, msgspec.Raw] = {}


class ToolCall(msgspec.Struct):
    """One call of a function."""

    function: Function
    id: str | None = None


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class TalkRequest(msgspec.Struct, kw_only=True):
    """What chats and completions share."""

    model: str = ""
    stream: bool | None = None
    options: dict[str, Any] | None = None
    format: msgspec.Raw = _NULL
    keep_alive: float | str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatRequest(TalkRequest, kw_only=True):
    """``POST /api/chat``."""

    messages: list[Message] | None = None
    tools: list[msgspec.Raw] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or go."""
        return not self.messages


class GenerateRequest(TalkRequest, kw_only=True):
    """``POST /api/generate``."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or go."""
        return not self.prompt and not self.suffix


class EmbedRequest(msgspec.Struct, kw_only=True):
    """``POST /api/embed``."""

    model: str = ""
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    keep_alive: float | str | None = None


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """``POST /api/embeddings``, which ``/api/embed`` has replaced."""

    model: str = ""
    prompt: str | None = None
    keep_alive: float | str | None = None


class ShowRequest(msgspec.Struct, kw_only=True):
    """``POST /api/show``; ``name`` is the older spelling of ``model``."""

    model: str = ""
    name: str = ""


_Request = TypeVar("_Request", bound=msgspec.Struct)


def read(body: bytes, kind: type[_Request]) -> _Request:
    """Return the request that ``body`` is.

    Raises:
        InvalidRequest: it is not JSON, or a field is not what it has to be.
    """
    if not body.strip():
        raise InvalidRequest("missing request body")
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not the JSON that this route takes: {error}") from None
