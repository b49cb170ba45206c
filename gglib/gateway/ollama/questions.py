"""From a request of Ollama's to the one that an engine is sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

import attrs
import msgspec

from gglib.domain.model import Capability, Model
from gglib.errors import InvalidRequest
from gglib.gateway.ollama.options import response_format, sampling
from gglib.gateway.ollama.requests import ChatRequest, GenerateRequest, Message, TalkRequest

__all__ = ["Question", "chat_question", "check_manner", "generate_question"]

_CHAT, _COMPLETION, _INFILL = "/v1/chat/completions", "/v1/completions", "/infill"
_EFFORTS = ("low", "medium", "high")
#: The first bytes of pictures, and what they are.
_PICTURES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
#: How much of a picture's text is decoded to know its kind: a multiple of four.
_PEEK = 32


@attrs.frozen
class Question:
    """A request to an engine: where to, and what."""

    path: str
    body: bytes


def chat_question(request: ChatRequest, model: Model) -> Question:
    """Return what the engine is asked.

    Raises:
        InvalidRequest: something is asked that cannot be.
    """
    fields = _shared(request, model)
    fields["messages"] = _messages(request.messages or ())
    if request.tools:
        if not all(bytes(tool).startswith(b"{") for tool in request.tools):
            raise InvalidRequest("a tool is no object", "tools")
        fields["tools"] = request.tools
    return _chat(request, model, fields)


def generate_question(request: GenerateRequest, model: Model) -> Question:
    """Return what the engine is asked: as a chat of one message, if the model has a template.

    Raises:
        InvalidRequest: something is asked that cannot be.
    """
    _refuse_what_cannot_be(request)
    fields = _shared(request, model)
    prompt = request.prompt or ""
    if request.suffix:
        fields |= {"input_prefix": prompt, "input_suffix": request.suffix}
        if "max_tokens" in fields:
            fields["n_predict"] = fields.pop("max_tokens")
        return _plain(_INFILL, request, fields)
    capabilities = model.facts.capabilities
    if request.raw or (
        Capability.COMPLETION in capabilities and Capability.CHAT not in capabilities
    ):
        fields["prompt"] = f"{request.system}\n\n{prompt}" if request.system else prompt
        if request.logprobs:
            fields["logprobs"] = max(1, int(request.top_logprobs or 0))
        return _plain(_COMPLETION, request, fields)
    messages = [Message("system", request.system)] if request.system else []
    messages.append(Message("user", prompt, images=request.images))
    fields["messages"] = _messages(messages)
    return _chat(request, model, fields)


def check_manner(request: TalkRequest, model: Model) -> None:
    """Look at how an answer is wanted, where none is: a mistake is one there, too.

    Raises:
        InvalidRequest: it cannot be had so.
    """
    sampling(request.options)
    response_format(request.format)
    if request.think is not None:
        _thinking(request.think, model)


def _shared(request: TalkRequest, model: Model) -> dict[str, Any]:
    # Always a stream, whatever the client wants: one way through, and an engine that is
    # silent for long is one that hangs.
    return {
        "model": model.name,
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling(request.options),
    }


def _chat(request: TalkRequest, model: Model, fields: dict[str, Any]) -> Question:
    if (wanted := response_format(request.format)) is not None:
        fields["response_format"] = wanted
    if request.think is not None:
        fields["chat_template_kwargs"] = _thinking(request.think, model)
    if request.logprobs:
        fields["logprobs"] = True
        if request.top_logprobs:
            fields["top_logprobs"] = int(request.top_logprobs)
    return Question(_CHAT, msgspec.json.encode(fields))


def _plain(path: str, request: TalkRequest, fields: dict[str, Any]) -> Question:
    if (wanted := response_format(request.format)) is not None:
        # llama-server looks for the schema itself here; other engines as they do in chats.
        fields["response_format"] = wanted
        fields["json_schema"] = wanted.get("json_schema", {}).get("schema", {})
    return Question(path, msgspec.json.encode(fields))


def _refuse_what_cannot_be(request: GenerateRequest) -> None:
    if request.raw and (request.template or request.system or request.context):
        raise InvalidRequest("raw mode does not support template, system, or context")
    if request.template:
        raise InvalidRequest(
            "template is not supported: the model's own is used; send the whole prompt with raw"
        )
    if request.context:
        raise InvalidRequest("context is not supported; send the messages so far to /api/chat")
    if request.images and (request.raw or request.suffix):
        raise InvalidRequest("images are not supported with raw or suffix")


def _thinking(think: bool | str, model: Model) -> dict[str, Any]:
    if isinstance(think, str) and think not in _EFFORTS:
        raise InvalidRequest(
            f'invalid think value: "{think[:100]}" '
            '(must be "high", "medium", "low", true, or false)'
        )
    facts = model.facts
    if think and facts.chat_template and Capability.REASONING not in facts.capabilities:
        raise InvalidRequest(f'"{model.name}" does not support thinking')
    if isinstance(think, str):
        return {"enable_thinking": True, "reasoning_effort": think}
    return {"enable_thinking": think}


# Messages


def _messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return OpenAI's messages. What tools answered is matched with the calls that asked."""
    found: list[dict[str, Any]] = []
    open_calls: list[tuple[str, str]] = []
    count = 0
    for message in messages:
        each: dict[str, Any] = {"role": message.role, "content": _content(message)}
        if message.thinking:
            each["reasoning_content"] = message.thinking
        if message.tool_calls:
            each["tool_calls"] = []
            for call in message.tool_calls:
                count += 1
                call_id = call.id or f"call_{count}"
                open_calls.append((call_id, call.function.name))
                arguments = msgspec.json.encode(call.function.arguments).decode()
                each["tool_calls"].append(
                    {
                        "id": call_id,
                        "type": "function",
                        "function": {"name": call.function.name, "arguments": arguments},
                    }
                )
        if message.role == "tool":
            each["tool_call_id"] = _answered(message, open_calls)
            if message.tool_name:
                each["name"] = message.tool_name
        found.append(each)
    return found


def _answered(message: Message, open_calls: list[tuple[str, str]]) -> str:
    """Return the id of the call that a tool's message answers: if it does not say, the first
    of that tool that waits. Each is answered once.
    """
    for at, (call_id, function) in enumerate(open_calls):
        if message.tool_call_id in (None, call_id) and message.tool_name in (None, function):
            del open_calls[at]
            return call_id
    return message.tool_call_id or "call_0"


def _content(message: Message) -> str | list[dict[str, Any]]:
    text = message.content or ""
    if not message.images:
        return text
    parts = [{"type": "text", "text": text}] if text else []
    urls = map(_picture, message.images)
    return [*parts, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]


def _picture(image: str) -> str:
    """Return a picture in base64 as the URL that engines take."""
    if image.startswith("data:"):
        return image
    try:
        first = base64.b64decode(image[:_PEEK], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("an image is not base64", "images") from None
    kind = next((kind for start, kind in _PICTURES if first.startswith(start)), None)
    if kind is None:
        kind = "image/webp" if first[8:12] == b"WEBP" else "image/png"
    return f"data:{kind};base64,{image}"
