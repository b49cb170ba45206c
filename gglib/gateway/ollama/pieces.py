"""What an engine streams, whichever of its routes was asked, as pieces of one kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import msgspec

from gglib.errors import EngineDied
from gglib.gateway.ollama.errors import EngineRefused, reason_in

__all__ = ["AnswerReader", "Counts", "Events", "Piece"]


@attrs.frozen(kw_only=True)
class Counts:
    """Tokens, and how long they took in nanoseconds; ``None``: the engine does not say."""

    prompt_tokens: int | None = None
    prompt_ns: int | None = None
    answer_tokens: int | None = None
    answer_ns: int | None = None


@attrs.frozen(kw_only=True)
class Piece:
    """Something new in an answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """Whole ones, as Ollama writes them."""
    logprobs: tuple[dict[str, Any], ...] = ()
    done_reason: str | None = None
    """Said by the last piece, and by no other: ``stop`` or ``length``."""
    counts: Counts = Counts()
    """Likewise."""

    @property
    def says_something(self) -> bool:
        """Whether there is anything that a client would want to see."""
        return bool(self.text or self.thinking or self.tool_calls or self.logprobs)


# What the engine writes


#: Numbers keep the form that the model gave them.
_Arguments = dict[str, msgspec.Raw]


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | _Arguments | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """As vLLM has it of late."""
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    """Of an answer that comes whole."""
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Timings(msgspec.Struct):
    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Chunk(msgspec.Struct):
    """An event of a chat, of a completion (``choices``), or of an infill (``content``)."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None
    content: str | None = None
    stop: bool = False
    stop_type: str | None = None
    tokens_evaluated: int | None = None
    tokens_predicted: int | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_DATA, _ERROR, _DONE = b"data:", b"error:", b"[DONE]"


class Events:
    """Server-sent events out of bytes. Only an unfinished line is ever held.

    Lines end at line feeds alone: what else Unicode calls a line's end may stand in a text.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Return the data of each event that ``chunk`` completes."""
        first, *lines = chunk.split(b"\n")
        self._rest.append(first)
        for line in lines:
            whole, self._rest = b"".join(self._rest), [line]
            if data := _data_of(whole):
                yield data


def _data_of(line: bytes) -> bytes:
    if line.startswith(_DATA):
        return line[len(_DATA) :].strip()
    if line.startswith(_ERROR):
        # How llama-server told of errors in a stream, for years.
        return b'{"error":%b}' % line[len(_ERROR) :].strip()
    return b""


class AnswerReader:
    """Makes pieces of an answer's events. Holds nothing but calls of tools, and counts."""

    __slots__ = ("_calls", "_counts", "_model_name", "_reason", "is_whole")

    def __init__(self, model_name: str) -> None:
        self.is_whole = False
        """Whether the engine has said that nothing more will come."""
        self._model_name = model_name
        self._calls: dict[int, _GatheredCall] = {}
        self._reason: str | None = None
        self._counts = Counts()

    def take(self, event: bytes) -> Piece | None:
        """Return what an event says, if it says anything.

        Raises:
            EngineRefused: the engine says that it failed.
            EngineDied: this is no event of an answer.
        """
        if event == _DONE:
            self.is_whole = True
            return None
        try:
            chunk = _decode(event)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EngineDied(self._model_name, f"its answer cannot be read: {error}") from None
        if chunk.error is not None:
            raise EngineRefused(500, reason_in(chunk.error))
        piece, reason = _piece_of(chunk, self._calls)
        self._reason = reason or self._reason
        self._counts = _counts_of(chunk, self._counts)
        return piece if piece.says_something else None

    def last(self) -> Piece:
        """Return the piece that ends the answer, once its bytes have ended.

        Raises:
            EngineRefused: the model called a tool in a way that cannot be told.
            EngineDied: its bytes have ended in the midst of it.
        """
        if self._reason is None:
            raise EngineDied(self._model_name, "its answer broke off")
        return Piece(
            tool_calls=_whole_calls(self._calls, self._reason),
            # Ollama knows no other reasons: a call of a tool ends an answer as its end does.
            done_reason="length" if self._reason == "length" else "stop",
            counts=self._counts,
        )


def _piece_of(chunk: _Chunk, calls: dict[int, _GatheredCall]) -> tuple[Piece, str | None]:
    """Return what is new, and why the answer ends if it does."""
    if not chunk.choices:
        reason = "length" if chunk.stop_type == "limit" else "stop"
        return Piece(text=chunk.content or ""), reason if chunk.stop else None
    choice = chunk.choices[0]
    delta = choice.delta or choice.message or _Delta(content=choice.text)
    for place, call in enumerate(delta.tool_calls or ()):
        index = place if call.index is None else call.index
        calls.setdefault(index, _GatheredCall()).add(call)
    piece = Piece(
        text=delta.content or "",
        thinking=delta.reasoning_content or delta.reasoning or "",
        logprobs=_logprobs_of(choice.logprobs),
    )
    return piece, choice.finish_reason


def _counts_of(chunk: _Chunk, so_far: Counts) -> Counts:
    usage = chunk.usage or _Usage(chunk.tokens_evaluated, chunk.tokens_predicted)
    timings = chunk.timings or _Timings()
    said = {
        "prompt_tokens": usage.prompt_tokens,
        "answer_tokens": usage.completion_tokens,
        "prompt_ns": _ns(timings.prompt_ms),
        "answer_ns": _ns(timings.predicted_ms),
    }
    said = {name: value for name, value in said.items() if value is not None}
    return attrs.evolve(so_far, **said) if said else so_far


def _ns(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1e6)


def _logprobs_of(logprobs: Any) -> tuple[dict[str, Any], ...]:
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list):
        return ()
    return tuple(_logprob(token) for token in tokens if isinstance(token, dict))


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        name: token[name] for name in ("token", "logprob", "bytes") if name in token
    }
    if isinstance(others := token.get("top_logprobs"), list) and others:
        kept["top_logprobs"] = [_logprob(each) for each in others if isinstance(each, dict)]
    return kept


# Calls of tools


class _GatheredCall:
    """A call of a tool, which comes in fragments of its arguments' text."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []

    def add(self, fragment: _ToolCall) -> None:
        self.id = self.id or fragment.id
        function = fragment.function
        if function is None:
            return
        self.name = self.name or function.name or ""
        if isinstance(function.arguments, dict):
            self.arguments = [msgspec.json.encode(function.arguments).decode()]
        elif function.arguments:
            self.arguments.append(function.arguments)


def _whole_calls(calls: dict[int, _GatheredCall], reason: str) -> tuple[dict[str, Any], ...]:
    found = []
    for index, call in sorted(calls.items()):
        try:
            arguments = msgspec.json.decode("".join(call.arguments) or "{}", type=_Arguments)
        except (msgspec.MsgspecError, RecursionError):
            if reason == "length":
                # It was cut off in the midst of its arguments, as the reason tells.
                continue
            raise EngineRefused(
                500, f"the model called '{call.name}' with arguments that are no JSON object"
            ) from None
        function = {"index": index, "name": call.name, "arguments": arguments}
        found.append({"function": function} | ({"id": call.id} if call.id else {}))
    return tuple(found)
