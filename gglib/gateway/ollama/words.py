"""From pieces of an answer to the objects that Ollama's clients read."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any

from gglib.gateway.ollama.pieces import Counts, Piece

__all__ = ["ChatWords", "GenerateWords", "Words", "timestamp"]


def timestamp(at: float | None = None) -> str:
    """Return a time (Unix seconds; now) as Ollama writes it."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Words(ABC):
    """Writes one answer, in pieces or whole, and keeps its times."""

    def __init__(self, model_name: str) -> None:
        """``model_name``: as the client said it."""
        self._model_name = model_name
        self._began_ns = time.monotonic_ns()
        self._asked_ns = self._began_ns
        self._first_ns: int | None = None

    def asked(self) -> None:
        """The model is there: what is measured from now on is the answer."""
        self._asked_ns = time.monotonic_ns()

    def load_times(self) -> dict[str, Any]:
        """Return how long all has taken so far, and what of it the model took to be there."""
        return {
            "total_duration": time.monotonic_ns() - self._began_ns,
            "load_duration": self._asked_ns - self._began_ns,
        }

    def part(self, piece: Piece) -> dict[str, Any]:
        """Return the object of a piece in the midst of an answer."""
        if self._first_ns is None:
            self._first_ns = time.monotonic_ns()
        return {**self._head(), **self._content(piece), "done": False}

    def end(self, last: Piece) -> dict[str, Any]:
        """Return the object that ends an answer; or a whole answer, if that is what it is told."""
        return {
            **self._head(),
            **self._content(last),
            "done": True,
            "done_reason": last.done_reason,
            **self._times(last.counts),
        }

    def without_answer(self, reason: str) -> dict[str, Any]:
        """Return the object that says that a model was loaded, or goes."""
        return {**self._head(), **self._content(Piece()), "done": True, "done_reason": reason}

    def whole(self, pieces: list[Piece], last: Piece) -> dict[str, Any]:
        """Return an answer as one object."""
        return self.end(
            Piece(
                text="".join(piece.text for piece in pieces),
                thinking="".join(piece.thinking for piece in pieces),
                tool_calls=last.tool_calls,
                logprobs=tuple(each for piece in pieces for each in piece.logprobs),
                done_reason=last.done_reason,
                counts=last.counts,
            )
        )

    @abstractmethod
    def _content(self, piece: Piece) -> dict[str, Any]: ...

    def _head(self) -> dict[str, Any]:
        return {"model": self._model_name, "created_at": timestamp()}

    def _times(self, counts: Counts) -> dict[str, Any]:
        """Return counts, and times in nanoseconds; what the engine does not say is measured."""
        now = time.monotonic_ns()
        first = self._first_ns or now
        prompt_ns, answer_ns = counts.prompt_ns, counts.answer_ns
        times = {
            **self.load_times(),
            "prompt_eval_count": counts.prompt_tokens,
            "prompt_eval_duration": first - self._asked_ns if prompt_ns is None else prompt_ns,
            "eval_count": counts.answer_tokens,
            "eval_duration": now - first if answer_ns is None else answer_ns,
        }
        return {name: value for name, value in times.items() if value is not None}


class ChatWords(Words):
    """As ``/api/chat`` answers."""

    def _content(self, piece: Piece) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": piece.text}
        if piece.thinking:
            message["thinking"] = piece.thinking
        if piece.tool_calls:
            message["tool_calls"] = list(piece.tool_calls)
        logprobs = {"logprobs": list(piece.logprobs)} if piece.logprobs else {}
        return {"message": message, **logprobs}


class GenerateWords(Words):
    """As ``/api/generate`` answers."""

    def _content(self, piece: Piece) -> dict[str, Any]:
        content: dict[str, Any] = {"response": piece.text}
        if piece.thinking:
            content["thinking"] = piece.thinking
        if piece.logprobs:
            content["logprobs"] = list(piece.logprobs)
        return content
