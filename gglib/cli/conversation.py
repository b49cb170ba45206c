"""A conversation with a model behind an OpenAI-compatible address."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from gglib.domain.inference import InferenceConfig
from gglib.errors import GatewayUnreachable, ServerError

if TYPE_CHECKING:
    import httpx

__all__ = ["Conversation", "Piece"]

_DATA = "data:"
_DONE = "[DONE]"


@attrs.frozen
class Piece:
    """A piece of an answer."""

    text: str
    is_reasoning: bool = False


class Conversation:
    """What was said so far, and the way to say more. Answers come in pieces, as they are made."""

    def __init__(self, client: httpx.Client, model: str, *, system: str | None = None) -> None:
        """``client``: with the address, and the key, of the server or the gateway."""
        self._client = client
        self._model = model
        self.system = system
        self.messages: list[dict[str, str]] = []
        """Without the system's."""
        self.inference = InferenceConfig()
        self.timings: Mapping[str, Any] = {}
        """What the engine told of its latest answer; empty: nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def ask(self, text: str) -> Iterator[Piece]:
        """Say ``text``, and yield the answer.

        What was said is kept when the answer is complete, or its reader stops; if it fails,
        it is as if it was never asked.

        Raises:
            ServerError: the model refuses, or fails in the midst of its answer.
            GatewayUnreachable: nobody answers.
        """
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        complete = False
        try:
            for piece in self._answer():
                if not piece.is_reasoning:
                    said.append(piece.text)
                yield piece
            complete = True
        except (GeneratorExit, KeyboardInterrupt):
            complete = True
            raise
        finally:
            if complete:
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self.messages.pop()

    def undo(self) -> str | None:
        """Forget the latest question and its answer; return the question, if there is one."""
        if len(self.messages) < 2:
            return None
        question = self.messages[-2]["content"]
        del self.messages[-2:]
        return question

    def _answer(self) -> Iterator[Piece]:
        import httpx

        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            **self.inference.set_fields(),
            "model": self._model,
            "messages": [*system, *self.messages],
            "stream": True,
        }
        self.timings = {}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    response.read()
                    raise ServerError(_message_of(response))
                yield from self._pieces(response)
        except httpx.HTTPError as error:
            address = str(self._client.base_url)
            raise GatewayUnreachable(address, str(error) or type(error).__name__) from None

    def _pieces(self, response: httpx.Response) -> Iterator[Piece]:
        ended = False
        for line in response.iter_lines():
            if not line.startswith(_DATA):
                continue
            data = line.removeprefix(_DATA).strip()
            if data == _DONE:
                ended = True
                continue
            event = json.loads(data)
            if "error" in event:
                raise ServerError(str(event["error"].get("message", event["error"])))
            self.timings = event.get("timings") or self.timings
            for choice in event.get("choices", ()):
                delta = choice.get("delta") or {}
                if reasoning := delta.get("reasoning_content"):
                    yield Piece(reasoning, is_reasoning=True)
                if content := delta.get("content"):
                    yield Piece(content)
        if not ended:
            raise ServerError("the answer ended before it was complete")


def _message_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}"
