"""What Ollama's clients send, read and checked. Fields that are not named here are ignored.

What goes on to the engine as it is (schemas, tools) is kept as its very bytes.

Source: ollama, docs/api.md and api/types.go, v0.12.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from gglib.errors import InvalidRequest
from gglib.gateway.ollama.durations import DURATION_PATTERN
from gglib.gateway.ollama.options import OPTION_SCHEMAS

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


def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


# What ``extra_json_schema`` says is for the document: it is checked where the value is used.

_Model = Annotated[
    str, Meta(description="A model's name, or an alias", extra_json_schema={"minLength": 1})
]
_Object = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
_Format = Annotated[
    msgspec.Raw,
    Meta(
        description="What the answer is to be: any text, JSON, or JSON of this schema",
        extra_json_schema={"anyOf": [{"enum": [None, "", "json"]}, {"type": "object"}]},
    ),
]
_KeepAlive = (
    Annotated[float, Meta(description="Seconds; below 0: for ever")]
    | Annotated[
        str,
        Meta(
            description="As Go writes a duration",
            examples=["5m", "1h30m", "-1"],
            extra_json_schema={"pattern": DURATION_PATTERN},
        ),
    ]
    | None
)
_Think = bool | Annotated[str, Meta(extra_json_schema={"enum": ["high", "medium", "low"]})] | None
_Options = Annotated[
    dict[str, Any],
    Meta(
        description="What is not named here is ignored",
        extra_json_schema={"properties": OPTION_SCHEMAS},
    ),
]
_Image = Annotated[
    str, Meta(description="A picture in base64", extra_json_schema={"contentEncoding": "base64"})
]
_Unsupported = Meta(description="Not supported: a prompt is refused with it")
_Template = Annotated[str, _Unsupported]
_Context = Annotated[list[int], _Unsupported]
#: JSON has one kind of numbers: 3.0 is an integer, too.
_Integer = Annotated[float, Meta(multiple_of=1)]


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
    images: list[_Image] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class TalkRequest(msgspec.Struct, kw_only=True):
    """What chats and completions share."""

    model: _Model = ""
    stream: Annotated[bool, Meta(description="True where it is not said")] | None = None
    options: _Options | None = None
    format: _Format = msgspec.field(default_factory=_null)
    keep_alive: _KeepAlive = None
    think: _Think = None
    logprobs: bool | None = None
    top_logprobs: _Integer | None = None


class ChatRequest(TalkRequest, kw_only=True):
    """``POST /api/chat``."""

    messages: list[Message] | None = None
    tools: list[_Object] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or go."""
        return not self.messages


class GenerateRequest(TalkRequest, kw_only=True):
    """``POST /api/generate``."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: _Template | None = None
    context: _Context | None = None
    raw: bool | None = None
    images: list[_Image] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or go."""
        return not self.prompt and not self.suffix


class EmbedRequest(msgspec.Struct, kw_only=True):
    """``POST /api/embed``."""

    model: _Model = ""
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: Annotated[_Integer, Meta(extra_json_schema={"minimum": 0})] | None = None
    keep_alive: _KeepAlive = None


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """``POST /api/embeddings``, which ``/api/embed`` has replaced."""

    model: _Model = ""
    prompt: str | None = None
    keep_alive: _KeepAlive = None


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
