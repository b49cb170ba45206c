"""Requests to engines under a lease, tried again where nobody can tell."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import httpx
import msgspec

from gglib.domain.model import Model
from gglib.domain.server_address import certificate_refusal
from gglib.errors import EngineDied, ServerUntrusted
from gglib.gateway.ollama.errors import EngineRefused, reason_in
from gglib.gateway.ollama.questions import Question
from gglib.gateway.relay.relayed import WHY_CUT
from gglib.gateway.relay.shared import RelayShared
from gglib.services.routing.router import Lease, Router
from gglib.services.routing.state import Closing
from gglib.services.serving import RunningServer

__all__ = ["Caller", "EngineAnswer", "Engines"]

_CONNECT_TIMEOUT_S = 10.0
_SILENT = "it has said nothing for too long"
_CLOSED = "the engine closed the connection"
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
            raise EngineDied(name, _SILENT) from None
        except httpx.RequestError:
            raise EngineDied(name, _CLOSED) from None

    async def read(self) -> bytes:
        """Return the whole answer."""
        return b"".join([chunk async for chunk in self.chunks()])


@attrs.frozen
class Caller:
    """What engines are told of who asks."""

    request_id: str
    session: str | None
    """Requests with the same one keep to one server; ``None``: any will do."""


class _Asker:
    """A request's task, which can be told that its server goes."""

    __slots__ = ("_task", "why")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.why: Closing | None = None

    def cut(self, why: Closing) -> None:
        """Wake the task, wherever it waits."""
        if self.why is None:
            self.why = why
            self._task.cancel()

    def was_cut(self) -> bool:
        """Whether that alone is why the task was cancelled; it is no longer, then."""
        return self._task.uncancel() == 0


class Engines:
    """Asks engines. Each request has a connection of its own: none that idles can be stale."""

    def __init__(self, router: Router, shared: RelayShared) -> None:
        self._router = router
        self._shared = shared
        self._made: dict[RunningServer | None, httpx.AsyncClient] = {}
        """The client of each server; those over plain TCP share that of ``None``."""
        self._heeds_ends = False
        self._asked: dict[RunningServer, set[_Asker]] = {}
        """Who waits for each server, or reads what it says."""

    async def _client(self, server: RunningServer) -> httpx.AsyncClient:
        pool = self._shared.pools.of(server)
        trust = await pool.dialer.trust()
        socket_path = pool.address.socket_path
        owner = None if trust is None and socket_path is None else server
        if not self._heeds_ends:
            # Not before it is needed: most gateways never are asked in Ollama's words.
            self._heeds_ends = True
            self._router.on_server_gone(self._server_gone)
        if owner not in self._made:
            transport = httpx.AsyncHTTPTransport(
                uds=socket_path,
                # Over plain TCP nothing is to be trusted.
                verify=trust or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                limits=httpx.Limits(max_keepalive_connections=0),
            )
            self._made[owner] = httpx.AsyncClient(transport=transport, trust_env=False)
        return self._made[owner]

    def _server_gone(self, server: RunningServer, why: Closing | None) -> None:
        """Let nobody wait for a server that is about to be ended, whatever it answers."""
        # It keeps no connection: what it still reads is read to its end.
        self._made.pop(server, None)
        if why is not None:
            for asker in self._asked.get(server, ()):
                asker.cut(why)

    @asynccontextmanager
    async def ask(
        self, model: Model, question: Question, caller: Caller, *, on_lease: Callable[[Lease], None]
    ) -> AsyncIterator[EngineAnswer]:
        """Ask a server of ``model``, and hold its answer and the lease for the block.

        An engine that fails before it answers is replaced once, and the client never knows.

        Raises:
            EngineDied: the second one failed, too; or one was silent for too long.
            EngineRefused: it answered with an error.
            NodeUnreachable: there is no way to its machine, and its model has no other.
            ServerUntrusted: it has a certificate that is not trusted.
            GglibError: there is no lease to be had; see ``Router.acquire``.
        """
        failed = False
        while True:
            # A second attempt goes wherever there is room: its session's server has just failed.
            session = None if failed else caller.session
            lease = self._router.try_lease(model, session=session)
            lease = lease or await self._router.acquire(model, session=session)
            asker = _Asker()
            askers = self._asked.setdefault(lease.server, set())
            askers.add(asker)
            try:
                on_lease(lease)
                try:
                    response = await self._send(lease, question, caller)
                except httpx.ReadTimeout:
                    raise EngineDied(model.name, _SILENT) from None
                except httpx.RequestError as error:
                    await self._give_up_after(lease.server, error, failed=failed)
                    failed = True
                    continue
                except asyncio.CancelledError:
                    # One that had not begun to answer because it hangs is like one that died.
                    if asker.why is Closing.UNHEALTHY and not failed and asker.was_cut():
                        failed = True
                        continue
                    raise
                try:
                    if response.status_code != httpx.codes.OK:
                        raise await _refusal(response)
                    yield EngineAnswer(lease, response)
                finally:
                    await response.aclose()
                return
            except asyncio.CancelledError:
                if asker.why is None or not asker.was_cut():
                    raise
                raise EngineDied(model.name, WHY_CUT[asker.why]) from None
            finally:
                askers.discard(asker)
                if not askers:
                    self._asked.pop(lease.server, None)
                lease.release()

    async def _give_up_after(
        self, server: RunningServer, error: httpx.RequestError, *, failed: bool
    ) -> None:
        """Raise what a server that did not answer is told as, unless another may yet.

        ``failed``: one has failed before. One to which there is no way is passed over, however
        many have been.
        """
        if server.is_behind_a_line:
            away = await self._router.way_to(server)
            if away is not None and self._router.is_passed_over(server):
                return
            if away is not None:
                raise away from None
        died = await self._router.is_gone(server)
        if failed:
            reason = "it ended twice over this request" if died else str(error)
            raise EngineDied(server.model.name, reason or _CLOSED) from None

    async def _send(self, lease: Lease, question: Question, caller: Caller) -> httpx.Response:
        server = lease.server
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "x-request-id": caller.request_id,
        }
        session_header = self._shared.session_header
        if session_header and caller.session is not None:
            headers[session_header.decode("latin-1")] = caller.session
        if server.api_key:
            headers["authorization"] = f"Bearer {server.api_key}"
        silence_s = self._shared.limits.silence_timeout_s
        client = await self._client(server)
        request = client.build_request(
            "POST",
            f"{self._shared.pools.of(server).address.http_url}{question.path}",
            content=question.body,
            headers=headers,
            timeout=httpx.Timeout(silence_s, connect=_CONNECT_TIMEOUT_S),
        )
        try:
            return await client.send(request, stream=True)
        except httpx.ConnectError as error:
            refusal = certificate_refusal(error)
            if refusal is None:
                raise
            raise ServerUntrusted(server.base_url, refusal) from None


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
