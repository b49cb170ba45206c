"""A small OpenAI-compatible server on a real socket, for tests that want one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import attrs

from gglib_adapters.runners.mock import openai_answers
from gglib_adapters.runners.mock.listener import Answer, Cut, EventStream, Listener
from gglib_adapters.runners.mock.openai_answers import (
    Generation,
    Refused,
    Reply,
    echo,
    error_document,
)

__all__ = ["EngineCondition", "MockEngineServer", "MockRequest"]

_NO_HEADERS: Mapping[str, str] = {}


class EngineCondition(StrEnum):
    """How an engine is, as its clients see it."""

    READY = "ready"
    LOADING = "loading"
    """Every path answers 503 "Loading model", as llama-server's do."""
    UNHEALTHY = "unhealthy"
    """``/health`` answers 503; the other paths answer."""
    GONE = "gone"
    """Connections are cut without an answer."""


@attrs.frozen
class MockRequest:
    """A request as the server saw it. ``headers`` by lower-case names, ``body`` as parsed JSON.

    ``body`` is ``None`` where there is none, or one that is not JSON.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@attrs.frozen
class _Failure:
    status: int
    message: str
    headers: Mapping[str, str]


class MockEngineServer:
    """Serves OpenAI's API on 127.0.0.1, in threads of this process, from ``start`` to ``close``.

    Serves ``/health``, ``/props``, ``/tokenize`` and, with or without ``/v1`` before them,
    ``/models``, ``/chat/completions``, ``/completions`` (both also streamed) and
    ``/embeddings``; errors are in OpenAI's shape. The same question has the same answer::

        with MockEngineServer(model="qwen", reply="Hello") as server:
            client = openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="any")

    ``reply``: a text, or a function of the request's parsed body; by default it echoes
    ``"You said: …"`` with the user's last message. Words count as tokens; ``max_tokens`` cuts.
    ``port``: 0 lets the system choose. ``api_key``: wanted as bearer token by everything but
    ``/health``. ``chunk_delay_s``: real seconds before each chunk of a streamed answer.
    ``dies_after_chunks``: a stream's connection is cut after so many. ``context_size`` and
    ``slots_total`` are what ``/props`` tells. ``condition`` is asked at every request and
    chunk. ``model``, ``reply`` and ``loading`` may be set at any time. Every method may be
    called from any thread.
    """

    def __init__(
        self,
        *,
        model: str = "mock",
        reply: Reply = echo,
        port: int = 0,
        api_key: str | None = None,
        chunk_delay_s: float = 0.0,
        dies_after_chunks: int | None = None,
        context_size: int = 4096,
        slots_total: int = 1,
        condition: Callable[[], EngineCondition] | None = None,
    ) -> None:
        self.model = model
        self.reply = reply
        self.loading = False
        """While true, every path answers 503 "Loading model"."""
        self._asked_port = port
        self._api_key = api_key
        self._chunk_delay_s = chunk_delay_s
        self._dies_after_chunks = dies_after_chunks
        self._context_size = context_size
        self._slots_total = slots_total
        self._condition_of_owner = condition
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._requests: list[MockRequest] = []
        self._failures: list[_Failure] = []
        self._answers = 0

    def __enter__(self) -> MockEngineServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port it listens on, or listened on last; before the first start that asked for."""
        return self._asked_port if self._listener is None else self._listener.server_port

    @property
    def base_url(self) -> str:
        """Where to connect, like a handle's ``base_url``; OpenAI's base is that and ``/v1``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[MockRequest]:
        """The requests so far, oldest first, those that were refused too."""
        with self._lock:
            return list(self._requests)

    def start(self) -> None:
        """Listen. Does nothing while it listens; after ``close`` it listens on the same port again.

        Raises:
            OSError: the port cannot be had.
        """
        if self._listener is None or self._listener.closing.is_set():
            self._listener = Listener(self.port, self._respond, self._admits)

    def close(self) -> None:
        """Stop listening and cut open connections, at once; the port is free when it returns.

        Does nothing where nothing listens.
        """
        if self._listener is not None:
            self._listener.close()

    def fail_next(
        self,
        status: int,
        message: str = "the mock engine was told to fail",
        count: int = 1,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        """Answer the next ``count`` requests with an error; ``/health`` is not among them."""
        with self._lock:
            self._failures += [_Failure(status, message, headers)] * count

    def _condition(self) -> EngineCondition:
        if self.loading:
            return EngineCondition.LOADING
        if self._condition_of_owner is None:
            return EngineCondition.READY
        return self._condition_of_owner()

    def _admits(self) -> bool:
        return self._condition() is not EngineCondition.GONE

    def _respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer | EventStream:
        condition = self._condition()
        if condition is EngineCondition.GONE:
            raise Cut
        parsed = _parsed(body)
        with self._lock:
            self._requests.append(MockRequest(method, target, headers, parsed))
        path = urlsplit(target).path.removeprefix("/v1")
        if condition is EngineCondition.LOADING:
            return Answer(503, error_document(503, "Loading model", code=503))
        if (method, path) == ("GET", "/health"):
            if condition is EngineCondition.UNHEALTHY:
                return Answer(503, error_document(503, "unhealthy", code=503))
            return Answer(200, {"status": "ok"})
        if failure := self._next_failure():
            document = error_document(failure.status, failure.message)
            return Answer(failure.status, document, failure.headers)
        if self._api_key is not None and headers.get("authorization") != f"Bearer {self._api_key}":
            return Answer(401, error_document(401, "Invalid API Key", code="invalid_api_key"))
        return self._route(method, path, parsed)

    def _route(self, method: str, path: str, body: Any) -> Answer | EventStream:
        match method, path:
            case "GET", "/models":
                return Answer(200, openai_answers.models(self.model))
            case "GET", "/props":
                return Answer(
                    200,
                    openai_answers.properties(
                        self.model, context_size=self._context_size, slots_total=self._slots_total
                    ),
                )
            case "POST", "/chat/completions":
                return self._generate(openai_answers.chat_generation, body)
            case "POST", "/completions":
                return self._generate(openai_answers.text_generation, body)
            case "POST", "/embeddings":
                return Answer(200, openai_answers.embeddings(_json(body), model=self.model))
            case "POST", "/tokenize":
                return Answer(200, openai_answers.tokens(_json(body)))
        raise Refused(404, f"there is no {method} {path}")

    def _generate(self, generation: Callable[..., Generation], body: Any) -> Answer | EventStream:
        request = _json(body)
        with self._lock:
            self._answers += 1
            number = self._answers
        try:
            answer = generation(request, self.reply, model=self.model, number=number)
        except Refused:
            raise
        except Exception as error:
            # The reply is its user's function: he should see what went wrong in it.
            raise Refused(500, f"the reply failed: {error!r}") from error
        if request.get("stream") is True:
            return EventStream(self._events(answer))
        return Answer(200, answer.document())

    def _events(self, answer: Generation) -> Iterator[str]:
        yield from map(json.dumps, answer.opening())
        for number, chunk in enumerate(answer.content()):
            self._before_chunk(number)
            yield json.dumps(chunk)
        yield from map(json.dumps, answer.closing())
        yield "[DONE]"

    def _before_chunk(self, number: int) -> None:
        assert self._listener is not None
        if self._dies_after_chunks is not None and number >= self._dies_after_chunks:
            raise Cut
        if self._chunk_delay_s and self._listener.closing.wait(self._chunk_delay_s):
            raise Cut
        if not self._admits():
            raise Cut

    def _next_failure(self) -> _Failure | None:
        with self._lock:
            return self._failures.pop(0) if self._failures else None


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _json(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object", "body")
    return body
