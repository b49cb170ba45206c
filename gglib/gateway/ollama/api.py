"""What has a body: from the request's first byte to the answer's last."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import attrs
import msgspec

from gglib.domain.model import Model
from gglib.domain.names import ResolvedName
from gglib.errors import EngineDied, GglibError, InvalidRequest
from gglib.gateway.ollama.engine import Caller, EngineAnswer, Engines
from gglib.gateway.ollama.errors import EngineRefused, refusal_of
from gglib.gateway.ollama.exchange import BodyTooLarge, ClientGone, Exchange
from gglib.gateway.ollama.names import find_model
from gglib.gateway.ollama.pieces import AnswerReader, Events, Piece
from gglib.gateway.ollama.questions import (
    Question,
    chat_question,
    check_manner,
    generate_question,
)
from gglib.gateway.ollama.requests import (
    ChatRequest,
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
    ShowRequest,
    TalkRequest,
    read,
)
from gglib.gateway.ollama.stay import Stay
from gglib.gateway.ollama.views import shown
from gglib.gateway.ollama.words import ChatWords, GenerateWords, Words
from gglib.gateway.relay.body import with_model
from gglib.gateway.relay.shared import RelayShared
from gglib.services.models import ModelService
from gglib.services.routing.router import Lease, Router

__all__ = ["OllamaApi"]

_EMBEDDINGS = "/v1/embeddings"


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage = msgspec.field(default_factory=_Usage)


class OllamaApi:
    """Answers the requests that have a body, each as a whole exchange."""

    def __init__(
        self,
        models: ModelService,
        router: Router,
        *,
        shared: RelayShared,
        log_error: Callable[[BaseException], None],
    ) -> None:
        self._models = models
        self._router = router
        self._engines = Engines(router, shared)
        self._shared = shared
        self._log_error = log_error

    async def chat(self, exchange: Exchange) -> None:
        """``POST /api/chat``."""
        await self._answer(exchange, self._chat)

    async def generate(self, exchange: Exchange) -> None:
        """``POST /api/generate``."""
        await self._answer(exchange, self._generate)

    async def embed(self, exchange: Exchange) -> None:
        """``POST /api/embed``."""
        await self._answer(exchange, self._embed)

    async def embeddings(self, exchange: Exchange) -> None:
        """``POST /api/embeddings``."""
        await self._answer(exchange, self._embeddings)

    async def show(self, exchange: Exchange) -> None:
        """``POST /api/show``."""
        await self._answer(exchange, self._show)

    async def _answer(self, exchange: Exchange, how: Callable[[Exchange, bytes], Any]) -> None:
        """Answer, or tell in Ollama's words why not, unless the client leaves before."""
        try:
            body = await exchange.read_body(self._shared.limits.max_body_bytes)
        except ClientGone:
            return
        except BodyTooLarge as error:
            await exchange.refuse(refusal_of(error, status=413))
            return

        async def work() -> None:
            try:
                await how(exchange, body)
            except (GglibError, EngineRefused) as error:
                await exchange.refuse(refusal_of(error))
            except Exception as error:
                # A bug of ours, or an adapter's: the client gets an answer, the log the trace.
                self._log_error(error)
                await exchange.refuse(refusal_of(error))

        await exchange.while_there(work)

    async def _show(self, exchange: Exchange, body: bytes) -> None:
        request = read(body, ShowRequest)
        meant = await self._meant(exchange, request.model or request.name)
        await exchange.answer(await shown(meant.model))

    # Chats and completions

    async def _chat(self, exchange: Exchange, body: bytes) -> None:
        request = read(body, ChatRequest)
        words = ChatWords(request.model)
        meant = await self._meant(exchange, request.model)
        if request.is_empty:
            await self._load_or_let_go(exchange, request, meant.model, words)
        else:
            question = chat_question(request, meant.model)
            await self._say(exchange, request, meant, question, words)

    async def _generate(self, exchange: Exchange, body: bytes) -> None:
        request = read(body, GenerateRequest)
        words = GenerateWords(request.model)
        meant = await self._meant(exchange, request.model)
        if request.is_empty:
            await self._load_or_let_go(exchange, request, meant.model, words)
        else:
            question = generate_question(request, meant.model)
            await self._say(exchange, request, meant, question, words)

    async def _load_or_let_go(
        self, exchange: Exchange, request: TalkRequest, model: Model, words: Words
    ) -> None:
        check_manner(request, model)
        stay = Stay.of(self._router, model, request.keep_alive)
        if not stay.asks_to_go:
            await self._router.load(model)
        stay.say()
        await exchange.answer(words.without_answer("unload" if stay.asks_to_go else "load"))

    async def _say(
        self,
        exchange: Exchange,
        request: TalkRequest,
        meant: ResolvedName,
        question: Question,
        words: Words,
    ) -> None:
        model = meant.model
        rules = self._shared.rule_book.rules_for(meant, question.path.encode())
        if rules is not None:
            question = Question(question.path, with_model(question.body, model.name, rules))
        stay = Stay.of(self._router, model, request.keep_alive)

        def on_lease(lease: Lease) -> None:
            exchange.measures.note_server()
            stay.say(lease)
            words.asked()

        caller = self._caller(exchange)
        async with self._engines.ask(model, question, caller, on_lease=on_lease) as answer:
            if request.stream is not False:
                await _say_in_lines(exchange, answer, model, words)
            else:
                pieces: list[Piece] = []

                async def gather(piece: Piece) -> None:
                    pieces.append(piece)

                last = await _tell_pieces(answer, model, gather)
                _note_tokens(exchange, last)
                await exchange.answer(words.whole(pieces, last))

    # Embeddings

    async def _embed(self, exchange: Exchange, body: bytes) -> None:
        request = read(body, EmbedRequest)
        words = GenerateWords(request.model)
        if request.dimensions is not None and request.dimensions < 0:
            raise InvalidRequest("dimensions must not be negative", "dimensions")
        model = (await self._meant(exchange, request.model)).model
        texts = request.input or []
        if isinstance(texts, str):
            texts = [texts]
        vectors, count = await self._vectors(exchange, model, texts, request.keep_alive, words)
        if request.dimensions:
            vectors = [_shortened(vector, int(request.dimensions)) for vector in vectors]
        times = words.load_times() | ({} if count is None else {"prompt_eval_count": count})
        await exchange.answer({"model": request.model, "embeddings": vectors, **times})

    async def _embeddings(self, exchange: Exchange, body: bytes) -> None:
        request = read(body, EmbeddingsRequest)
        words = GenerateWords(request.model)
        model = (await self._meant(exchange, request.model)).model
        texts = [request.prompt] if request.prompt else []
        vectors, _ = await self._vectors(exchange, model, texts, request.keep_alive, words)
        await exchange.answer({"embedding": vectors[0] if vectors else []})

    async def _vectors(
        self,
        exchange: Exchange,
        model: Model,
        texts: list[str],
        keep_alive: float | str | None,
        words: Words,
    ) -> tuple[list[list[float]], int | None]:
        """Return a vector for each text, and how many tokens those were; none: loads the model."""
        stay = Stay.of(self._router, model, keep_alive)
        if not texts:
            await self._router.load(model)
            stay.say()
            words.asked()
            return [], None

        def on_lease(lease: Lease) -> None:
            exchange.measures.note_server()
            stay.say(lease)
            words.asked()

        fields = {"model": model.name, "input": texts, "encoding_format": "float"}
        question = Question(_EMBEDDINGS, msgspec.json.encode(fields))
        caller = self._caller(exchange)
        async with self._engines.ask(model, question, caller, on_lease=on_lease) as answer:
            said = await answer.read()
        try:
            found = msgspec.json.decode(said, type=_Embeddings)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise EngineDied(model.name, f"its answer cannot be read: {error}") from None
        found.data.sort(key=lambda each: each.index)
        exchange.measures.note_tokens(found.usage.prompt_tokens)
        return [each.embedding for each in found.data], found.usage.prompt_tokens

    async def _meant(self, exchange: Exchange, name: str) -> ResolvedName:
        """Return the model that a request names, by which it is counted from now on."""
        meant = await find_model(self._models, name, exchange.grant)
        exchange.measures.model_name = meant.model.name
        return meant

    def _caller(self, exchange: Exchange) -> Caller:
        header = self._shared.session_header
        return Caller(exchange.request_id, exchange.header(header) if header else None)


async def _tell_pieces(answer: EngineAnswer, model: Model, tell: Callable[[Piece], Any]) -> Piece:
    """Have each piece told as it comes, and return the last."""
    events, reader = Events(), AnswerReader(model.name)
    if not answer.is_event_stream:
        # An engine that does not stream, or is made not to: the whole is one piece.
        piece = reader.take(await answer.read())
        if piece is not None:
            await tell(piece)
        return reader.last()
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            for event in events.feed(chunk):
                piece = reader.take(event)
                if piece is not None:
                    await tell(piece)
            if reader.is_whole:
                break
    return reader.last()


async def _say_in_lines(
    exchange: Exchange, answer: EngineAnswer, model: Model, words: Words
) -> None:
    async def tell(piece: Piece) -> None:
        await exchange.line(words.part(piece))

    last = await _tell_pieces(answer, model, tell)
    _note_tokens(exchange, last)
    if last.tool_calls:
        # Clients look for them before the end.
        await exchange.line(words.part(Piece(tool_calls=last.tool_calls)))
        last = attrs.evolve(last, tool_calls=())
    await exchange.line(words.end(last))
    await exchange.end()


def _note_tokens(exchange: Exchange, last: Piece) -> None:
    counts = last.counts
    exchange.measures.note_tokens(counts.prompt_tokens, counts.answer_tokens, counts.answer_ns)


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    """Return the first numbers of a vector, made one of length 1 again."""
    first = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in first))
    return [number / length for number in first] if length else first
