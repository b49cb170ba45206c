"""Requests to engines under a lease, tried again where nobody can tell."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import httpx
import msgspec

from gglib.domain.model import Model
from gglib.errors import EngineDied
from gglib.gateway.ollama.errors import EngineRefused, reason_in
from gglib.gateway.ollama.questions import Question
from gglib.services.routing.router import Lease, Router

__all__ = ["EngineAnswer", "Engines"]

_CONNECT_TIMEOUT_S = 10.0
#: Of an engine's error, so much is read.
_ERROR_BYTES = 64 * 1024


@attrs.frozen
class EngineAnswer:
    """An answer that has begun, and is none that refuses."""

    lease: Lease
    response: httpx.Response

    @property
    def is_event_stream(self) -> bool:
        """Whether it comes piece by piece."""
        kind: str = self.response.headers.get("content-type", "")
        return kind.startswith("text/event-stream")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Return the answer's bytes as they come; whoever does not ask holds the engine back.

        Raises:
            EngineDied: it broke off, or said nothing for too long.
        """
        name = self.lease.server.model.name
        try:
            async for chunk in self.response.aiter_raw():
                yield chunk
        except httpx.TimeoutException:
            raise EngineDied(name, "it has said nothing for too long") from None
        except httpx.RequestError:
            raise EngineDied(name, "the engine closed the connection") from None

    async def read(self) -> bytes:
        """Return the whole answer."""
        return b"".join([chunk async for chunk in self.chunks()])


class Engines:
    """Asks engines. Each request has a connection of its own: none that idles can be stale."""

    def __init__(self, router: Router, *, silence_timeout_s: float | None) -> None:
        self._router = router
        self._silence_timeout_s = silence_timeout_s
        self._made: httpx.AsyncClient | None = None

    @property
    def _client(self) -> httpx.AsyncClient:
        # Made when it is first needed: most gateways never are asked in Ollama's words.
        if self._made is None:
            self._made = httpx.AsyncClient(
                timeout=httpx.Timeout(self._silence_timeout_s, connect=_CONNECT_TIMEOUT_S),
                limits=httpx.Limits(max_keepalive_connections=0),
                trust_env=False,
            )
        return self._made

    @asynccontextmanager
    async def ask(
        self, model: Model, question: Question, *, on_lease: Callable[[Lease], None]
    ) -> AsyncIterator[EngineAnswer]:
        """Ask a server of ``model``, and hold its answer and the lease for the block.

        An engine that fails before it answers is replaced once, and the client never knows.

        Raises:
            EngineDied: the second one failed, too; or one was silent for too long.
            EngineRefused: it answered with an error.
            GglibError: there is no lease to be had; see ``Router.acquire``.
        """
        failed = False
        while True:
            lease = self._router.try_lease(model) or await self._router.acquire(model)
            try:
                on_lease(lease)
                try:
                    response = await self._send(lease, question)
                except httpx.ReadTimeout:
                    reason = "it has said nothing for too long"
                    raise EngineDied(model.name, reason) from None
                except httpx.RequestError as error:
                    died = await self._router.is_gone(lease.server)
                    if not failed:
                        failed = True
                        continue
                    reason = str(error) or "the engine closed the connection"
                    if died:
                        reason = "it ended twice over this request"
                    raise EngineDied(model.name, reason) from None
                try:
                    if response.status_code != httpx.codes.OK:
                        raise await _refusal(response)
                    yield EngineAnswer(lease, response)
                finally:
                    await response.aclose()
                return
            finally:
                lease.release()

    async def _send(self, lease: Lease, question: Question) -> httpx.Response:
        server = lease.server
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if server.api_key:
            headers["authorization"] = f"Bearer {server.api_key}"
        request = self._client.build_request(
            "POST", f"{server.base_url}{question.path}", content=question.body, headers=headers
        )
        return await self._client.send(request, stream=True)


async def _refusal(response: httpx.Response) -> EngineRefused:
    said = bytearray()
    try:
        async for chunk in response.aiter_raw():
            said += chunk
            if len(said) > _ERROR_BYTES:
                break
    except httpx.RequestError:
        pass  # what it had said so far has to do
    status = response.status_code if response.is_error else 502
    try:
        reason = reason_in(msgspec.json.decode(bytes(said)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = said[:200].decode("utf-8", "replace").strip()
        reason = text or f"the engine answered with status {response.status_code}"
    return EngineRefused(status, reason)
