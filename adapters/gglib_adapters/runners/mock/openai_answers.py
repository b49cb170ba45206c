"""What an OpenAI-compatible server answers, as plain data: the same to the same question."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs

__all__ = [
    "Generation",
    "Refused",
    "Reply",
    "chat_generation",
    "echo",
    "embeddings",
    "error_document",
    "models",
    "properties",
    "text_generation",
    "tokens",
]

Json: TypeAlias = dict[str, Any]

#: What a server says: always the same, or a function of the request's body.
Reply: TypeAlias = str | Callable[[Json], str]

#: Answers carry no real time: the same question has the same answer.
_CREATED = 1_700_000_000
_DIMENSIONS = 8
_MAX_DIMENSIONS = 4096
_VOCABULARY = 32_000

#: The words by which OpenAI and llama-server tell what went wrong.
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


class Refused(Exception):
    """A request that is answered by an error; ``param`` names the field at fault."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


def error_document(
    status: int, message: str, *, param: str | None = None, code: object = None
) -> Json:
    """Return an error in OpenAI's shape."""
    kind = _KINDS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def echo(request: Json) -> str:
    """Reply with what the user said last, so that a test can tell which request was answered."""
    if "messages" not in request:
        return f"You said: {_prompt(request)}"
    said = [message for message in request["messages"] if message.get("role") == "user"]
    return f"You said: {_text_of(said[-1]) if said else ''}"


def models(model: str) -> Json:
    """Return the list of models, of which there is one."""
    entry = {"id": model, "object": "model", "created": _CREATED, "owned_by": "mock"}
    return {"object": "list", "data": [entry]}


def properties(model: str, *, context_size: int, slots_total: int) -> Json:
    """Return what llama-server says of itself under ``/props``."""
    return {
        "default_generation_settings": {"n_ctx": context_size},
        "total_slots": slots_total,
        "model_alias": model,
        "model_path": f"{model}.gguf",
        "chat_template": "",
    }


def tokens(request: Json) -> Json:
    """Return one token per word, the same for the same word."""
    content = request.get("content", "")
    if not isinstance(content, str):
        raise Refused(400, "'content' must be a string", "content")
    return {"tokens": [zlib.crc32(word.encode()) % _VOCABULARY for word in content.split()]}


@attrs.frozen(kw_only=True)
class Generation:
    """One answer to a request for text, whole or in chunks. Its tokens are words."""

    answer_id: str
    model: str
    chat: bool
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    with_usage: bool

    @property
    def usage(self) -> Json:
        """How many words came in and went out."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def document(self) -> Json:
        """Return the whole answer."""
        if self.chat:
            message = {"role": "assistant", "content": self.text}
            choice: Json = {"message": message}
        else:
            choice = {"text": self.text}
        return self._envelope("", choice, self.finish_reason) | {"usage": self.usage}

    def opening(self) -> list[Json]:
        """Return what comes before the content: whose turn it is, in a chat."""
        delta = {"delta": {"role": "assistant", "content": ""}}
        return [self._envelope(".chunk", delta, None)] if self.chat else []

    def content(self) -> Iterator[Json]:
        """Yield the content, word by word."""
        for word in _words(self.text):
            piece: Json = {"delta": {"content": word}} if self.chat else {"text": word}
            yield self._envelope(".chunk", piece, None)

    def closing(self) -> list[Json]:
        """Return what comes after the content: why it ended, and the usage if asked for."""
        piece: Json = {"delta": {}} if self.chat else {"text": ""}
        last = [self._envelope(".chunk", piece, self.finish_reason)]
        if self.with_usage:
            last.append(last[0] | {"choices": [], "usage": self.usage})
        return last

    def _envelope(self, suffix: str, choice: Json, finish_reason: str | None) -> Json:
        kind = f"chat.completion{suffix}" if self.chat else "text_completion"
        return {
            "id": self.answer_id,
            "object": kind,
            "created": _CREATED,
            "model": self.model,
            "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": finish_reason}],
        }


def chat_generation(request: Json, reply: Reply, *, model: str, number: int) -> Generation:
    """Return the answer to a chat.

    Raises:
        Refused: the request has no messages, or asks for what cannot be.
    """
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(isinstance(said, dict) for said in messages):
        raise Refused(400, "'messages' is required: a list of messages", "messages")
    prompt = " ".join(_text_of(message) for message in messages)
    return _generation(request, reply, prompt, chat=True, model=model, number=number)


def text_generation(request: Json, reply: Reply, *, model: str, number: int) -> Generation:
    """Return the continuation of a prompt.

    Raises:
        Refused: the request has no prompt, or asks for what cannot be.
    """
    if not isinstance(request.get("prompt"), str | list):
        raise Refused(400, "'prompt' is required: a text", "prompt")
    prompt = _prompt(request)
    return _generation(request, reply, prompt, chat=False, model=model, number=number)


def embeddings(request: Json, *, model: str) -> Json:
    """Return a vector of length one per input, the same for the same text.

    Raises:
        Refused: the request has no input, or asks for what cannot be.
    """
    given = request.get("input")
    if not isinstance(given, str | list) or not given:
        raise Refused(400, "'input' is required: a text or a list of texts", "input")
    # A list of numbers is one text, in tokens.
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    dimensions = _whole(request, "dimensions", _DIMENSIONS)
    if dimensions > _MAX_DIMENSIONS:
        raise Refused(400, f"'dimensions' must be at most {_MAX_DIMENSIONS}", "dimensions")
    encoding = request.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise Refused(400, "'encoding_format' must be 'float' or 'base64'", "encoding_format")
    data = []
    for index, text in enumerate(inputs):
        packed = _vector(str(text), dimensions)
        vector: object = base64.b64encode(packed).decode()
        if encoding == "float":
            vector = list(struct.unpack(f"<{dimensions}f", packed))
        data.append({"object": "embedding", "index": index, "embedding": vector})
    count = sum(len(str(text).split()) for text in inputs)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _generation(
    request: Json, reply: Reply, prompt: str, *, chat: bool, model: str, number: int
) -> Generation:
    text = reply if isinstance(reply, str) else reply(request)
    words = _words(text)
    limit = _whole(request, "max_tokens", _whole(request, "max_completion_tokens", len(words)))
    options = request.get("stream_options")
    return Generation(
        answer_id=f"{'chatcmpl' if chat else 'cmpl'}-mock-{number}",
        model=model,
        chat=chat,
        text="".join(words[:limit]),
        finish_reason="length" if limit < len(words) else "stop",
        prompt_tokens=len(prompt.split()),
        completion_tokens=min(limit, len(words)),
        with_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def _whole(request: Json, name: str, default: int) -> int:
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refused(400, f"'{name}' must be a whole number of 1 or more", name)
    return value


def _words(text: str) -> list[str]:
    """Return the words with the spaces before them: together they are ``text`` again."""
    return re.findall(r"\s*\S+|\s+$", text)


def _prompt(request: Json) -> str:
    prompt = request["prompt"]
    return " ".join(map(str, prompt)) if isinstance(prompt, list) else str(prompt)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return " ".join(part for part in parts if part)
    return content if isinstance(content, str) else ""


def _vector(text: str, dimensions: int) -> bytes:
    """Return ``dimensions`` floats of 32 bits, little-endian, of length one."""
    noise = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    raw = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", noise)]
    # No text is without direction.
    length = math.hypot(*raw) or 1.0
    return struct.pack(f"<{dimensions}f", *(number / length for number in raw))
