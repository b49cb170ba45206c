"""One relayed request: read its model, get a lease, splice the engine's answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from gglib.domain.names import ResolvedName
from gglib.errors import EngineDied, GglibError, InvalidRequest, ServerUntrusted
from gglib.gateway.allowed import allowed_model
from gglib.gateway.relay.body import RequestedModel, read_requested_model, with_model
from gglib.gateway.relay.events import error_event
from gglib.gateway.relay.form import RequestedForm, read_requested_form, with_form_model
from gglib.gateway.relay.heads import AnswerHead, RequestHead, SentOn
from gglib.gateway.relay.metered import MAX_WHOLE_BYTES, MeteredTurn
from gglib.gateway.relay.splice import Splice
from gglib.gateway.relay.upstream import UpstreamConnection, UpstreamPool
from gglib.gateway.relay.vigil import Vigil
from gglib.gateway.relay.wire import (
    CONTINUE,
    LAST_CHUNK,
    STATUS_LINES,
    chunk,
)
from gglib.services.routing.router import Lease
from gglib.services.routing.state import Closing
from gglib.services.serving import RunningServer

if TYPE_CHECKING:
    from gglib.gateway.relay.connection import GatewayProtocol

__all__ = ["WHY_CUT", "RelayTurn"]

#: What clients are told whose answer is broken off.
WHY_CUT = {
    Closing.SWAP: "its answer took longer than max_drain_s, and another model needs its place",
    Closing.UNLOAD: "it was unloaded by force",
    Closing.DRAIN: "it was unloaded, and its answer took longer than max_drain_s",
    Closing.CHANGED: "its model has changed, and its answer took longer than max_drain_s",
    Closing.EXPIRED: "it was unloaded",
    Closing.UNHEALTHY: "it no longer answered health checks, and is started anew",
    Closing.SURPLUS: "the connection to its machine was cut",
    Closing.SHUTDOWN: "the gateway ends",
}


class RelayTurn(MeteredTurn):
    """A relayed request. States: reading, waiting for a lease, sent, answering, over."""

    http_1_0 = False
    _method = b"POST"
    _head_only = False
    _has_odd_body = False
    """Whether it has a body where its method usually has none."""
    _head_end = b"\r\ncontent-length: 0\r\n\r\n"
    """What ends the head of a request without a body."""
    _form: RequestedForm | None = None
    _body = b""
    _pieces: list[bytes] | None = None
    _requested: RequestedModel | None = None
    _resolved: ResolvedName | None = None
    _lease: Lease | None = None
    _pool: UpstreamPool | None = None
    _upstream: UpstreamConnection | None = None
    _task: asyncio.Task[None] | None = None
    _attempt = 0
    _head_sent = False
    _chunked = False
    _close_delimited = False
    _heard = True
    _silent_since = 0.0
    _refusal: tuple[GglibError, int] | None = None
    _vigil: Vigil | None = None
    """Of a stream that had to wait."""

    # Positional, and few: this is made for every request.
    def __init__(
        self, connection: GatewayProtocol, target: bytes, head: RequestHead, keep_alive: bool
    ) -> None:
        self.connection = connection
        self.keep_alive = keep_alive
        self.shared = connection.shared
        self.target = target
        self._head = head
        self.cors_lines = head.cors_lines
        self.request_id = head.request_id or connection.shared.request_ids.make()
        self._out: list[bytes] = []

    # Reading the request

    def on_body(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self.body_bytes += len(data)
        if self.body_bytes > self.shared.limits.max_body_bytes:
            self.connection.refuse_body(self)
        elif not self._body:
            self._body = data
        elif self._pieces is None:
            self._pieces = [self._body, data]
        else:
            self._pieces.append(data)

    def on_request_complete(self) -> None:
        self.request_complete = True
        if self._pieces is not None:
            self._body = b"".join(self._pieces)
            self._pieces = None
        if self.active:
            self._begin()

    def take_whole(self, body: bytes) -> None:
        """Take all of the request's body, which is within its limit."""
        self._body = body
        self.request_complete = True

    def activate(self) -> None:
        self.active = True
        if self._refusal is not None:
            self._refuse_now(*self._refusal)
        elif self.request_complete:
            self._begin()
        elif self._head.expects_continue:
            self.write(CONTINUE)

    def refuse(self, error: GglibError, status: int) -> None:
        """Answer with ``error``, when it is this request's turn: what was sent of it is no good."""
        self._drop_body()
        self.keep_alive = False
        self._refusal = (error, status)
        if self.active:
            self._refuse_now(error, status)

    def _refuse_now(self, error: GglibError, status: int) -> None:
        self.answer_with(error, status=status, request_id=self.request_id)

    # Getting a server

    def _begin(self) -> None:
        self.began_at = monotonic()
        try:
            self._read_model()
            assert self._requested is not None
            resolved = self.shared.models.peek(self._requested.model)
        except GglibError as error:
            self.answer_error(error)
            return
        if resolved is not None:
            model = resolved.model
            if self._head.grant.models is not None and not self._head.grant.allows(model.name):
                self.answer_error(self._head.grant.refusal(self._requested.model))
                return
            self._resolved = resolved
            session = self._session() if model.defaults.replicas > 1 else None
            lease = self.shared.router.try_lease(model, session=session)
            if lease is not None:
                self._send(lease)
                return
        self._spawn(self._wait_for_lease())

    def _read_model(self) -> None:
        """Find out what the request asks for.

        Raises:
            GglibError: it does not say, or not well.
        """
        boundary = self._head.boundary
        if boundary is None:
            self._requested = read_requested_model(self._body)
        else:
            form = self._form = read_requested_form(self._body, boundary)
            self._requested = RequestedModel(form.model, form.stream)

    def _body_for(self, model: str) -> bytes:
        """Return the body to send on, with the model's own name."""
        assert self._requested is not None
        assert self._resolved is not None
        same = self._requested.model == model
        if self._form is not None:
            return self._body if same else with_form_model(self._body, self._form, model)
        rules = self.shared.rule_book.rules_for(self._resolved, self.target)
        return self._body if same and rules is None else with_model(self._body, model, rules)

    async def _wait_for_lease(self) -> None:
        assert self._requested is not None
        if not self._requested.stream:
            await self._lease_and_send(None)
            return
        vigil = self._vigil = self._vigil or Vigil(self)
        vigil.waits = True
        try:
            await self._lease_and_send(vigil)
        finally:
            vigil.waits = False

    async def _lease_and_send(self, vigil: Vigil | None) -> None:
        assert self._requested is not None
        asked_at = monotonic()
        try:
            grant = self._head.grant
            resolved = await allowed_model(self.shared.models, self._requested.model, grant)
            self._resolved = resolved
            self.model_name = resolved.model.name
            # A second attempt goes wherever there is room: its session's server has just failed.
            session = None if self._attempt else self._session()
            moved = None
            if vigil is not None:
                vigil.model = resolved.model
                moved = vigil.moved if vigil.tells_state else None
            lease = await self.shared.router.acquire(
                resolved.model, session=session, on_position=moved
            )
        except GglibError as error:
            self.answer_error(error)
            return
        self.queue_wait_s += monotonic() - asked_at
        if vigil is not None:
            vigil.waits = False
        if self.disconnected:
            lease.release()
        else:
            self._send(lease)

    def _session(self) -> str | None:
        name = self.shared.session_header
        return self._head.value_of(name) if name else None

    # Sending it on

    def _send(self, lease: Lease) -> None:
        self._lease = lease
        server = lease.server
        self.note_grant(server.model.name)
        pool = self._pool = self.shared.pools.of(server)
        upstream = pool.take()
        if upstream is None:
            self._spawn(self._connect_and_send(lease, pool))
        else:
            self._send_on(upstream, lease, pool)

    async def _connect_and_send(self, lease: Lease, pool: UpstreamPool) -> None:
        try:
            upstream = await pool.connect()
        except OSError as error:
            await self._after_failure(lease, str(error))
            return
        except ServerUntrusted as error:
            self.answer_error(error)
            return
        if self.disconnected or upstream.closed:
            upstream.abandon()
            self._release()
        else:
            self._send_on(upstream, lease, pool)

    def _send_on(self, upstream: UpstreamConnection, lease: Lease, pool: UpstreamPool) -> None:
        self._upstream = upstream
        self._heard = True
        body = self._body_for(lease.server.model.name)
        if body:
            prefix = self._request_prefix(pool)
            head = b"%b%b\r\ncontent-length: %d\r\n\r\n" % (prefix, self.request_id, len(body))
        else:
            head = self._bodiless_head(pool)
        self.shared.meter.bytes_to_engines += len(head) + len(body)
        upstream.send(self, head, body, self._head_only, self._has_odd_body)
        if self.connection.flow.write_paused:
            upstream.pause_reading()

    def _bodiless_head(self, pool: UpstreamPool) -> bytes:
        return self._request_prefix(pool) + self.request_id + self._head_end

    def _request_prefix(self, pool: UpstreamPool) -> bytes:
        """Return the head of the request to an engine, up to its id."""
        sent_on, pool_head = self._head.sent_on, pool.request_head_tail
        if sent_on is not None:
            method, target, known_pool_head, prefix = sent_on
            if pool_head is known_pool_head and target == self.target and method == self._method:
                return prefix
        prefix = b"%b%b%b%b%bx-request-id: " % (
            self._method,
            pool.target_prefix,
            self.target,
            pool_head,
            self._head.travelling,
        )
        self._head.sent_on = SentOn(self._method, self.target, pool_head, prefix)
        return prefix

    # The engine's answer (AnswerSink)

    def answer_started(self, status: int, head: AnswerHead) -> None:
        if self._vigil is not None and self._vigil.committed:
            self._head_sent = True
            self.is_event_stream = True
            self._chunked = not self.http_1_0
            self._drop_body()
            if not (status == 200 and head.is_event_stream):
                self._vigil.misfit = []
            return
        out, length = self._out, head.length
        out += (STATUS_LINES.get(status, STATUS_LINES[502]), head.travelling)
        self.status = status
        if head.is_event_stream:
            self.is_event_stream = True
            # It may go on for long, and is not tried again.
            self._drop_body()
        elif not head.is_json:
            self.tells_usage = False
        if length is not None:
            out += (b"content-length: ", length, b"\r\n")
        elif status not in {204, 304} and not self._head_only:
            self._close_delimited = not head.is_encoded
            if self.http_1_0:
                self.keep_alive = False
            else:
                self._chunked = True
                out.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            out.append(b"connection: close\r\n")
        out += (self.cors_lines, b"x-request-id: ", self.request_id, b"\r\n\r\n")
        self._head_sent = True

    def answer_body(self, data: bytes) -> None:
        if self._vigil is not None and self._vigil.misfit is not None:
            self._vigil.keep(data)
            return
        self.note_piece(data)
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def splice(self) -> Splice | None:
        if not (self._chunked and self.is_event_stream) or self.tail is None:
            return None
        if self.spliced is None:
            self.spliced = Splice(self.connection.transport.write, self.shared.meter)
        return self.spliced

    def answer_ended(self) -> None:
        self._upstream = None
        if self._vigil is not None and self._vigil.misfit is not None:
            self._vigil.end_misfit()
        elif self._chunked:
            self.gather()
            self._out.append(LAST_CHUNK)
        self.flush()
        self._release()
        self.finish()

    def answer_whole(self, status: int, head: AnswerHead, body: bytes) -> None:
        if (
            self._vigil is not None
            or not self.keep_alive
            or not head.is_json
            or len(body) > MAX_WHOLE_BYTES
        ):
            head.length = b"%d" % len(body)
            self.answer_started(status, head)
            if body:
                self.answer_body(body)
            self.answer_ended()
            return
        # As those, one after the other: most answers come so.
        self._upstream = None
        self.status = status
        self.head = body
        answer = b"%b%d\r\n%bx-request-id: %b\r\n\r\n%b" % (
            head.begun(status),
            len(body),
            self.cors_lines,
            self.request_id,
            body,
        )
        connection = self.connection
        connection.transport.write(answer)
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        self.response_complete = True
        meter = self.shared.meter
        meter.bytes_to_clients += len(answer)
        meter.ended(self)
        connection.on_response_complete()

    def flush(self) -> None:
        self._heard = True
        if self._out:
            data = b"".join(self._out)
            self.shared.meter.bytes_to_clients += len(data)
            self.connection.transport.write(data)
            self._out = []

    def upstream_failed(self, reason: str, *, clean_close: bool) -> None:
        upstream, self._upstream = self._upstream, None
        lease = self._lease
        if self.response_complete or lease is None:
            return
        if not self._head_sent:
            if upstream is not None and upstream.used and self._attempt == 0:
                # A kept-alive connection may have closed as we wrote: that is nobody's failure.
                assert self._pool is not None
                self._spawn(self._connect_and_send(lease, self._pool))
            else:
                self._spawn(self._after_failure(lease, reason))
        elif clean_close and self._close_delimited:
            self._spawn(self._end_close_delimited(lease))
        elif lease.server.is_behind_a_line:
            self._spawn(self._end_cut(lease, reason))
        else:
            self._break_off(lease, reason)

    # Failures

    async def _after_failure(self, lease: Lease, reason: str) -> None:
        """Before the first byte: once more on a fresh lease, then an error."""
        self._attempt += 1
        if lease.server.is_behind_a_line:
            router = self.shared.router
            away = await router.way_to(lease.server)
            if away is not None and router.is_passed_over(lease.server):
                # However many machines are away: each is passed over once.
                self._release()
                await self._wait_for_lease()
                return
            if away is not None:
                self.answer_error(away)
                return
        died = await self.shared.router.is_gone(lease.server)
        if self._attempt == 1:
            self._release()
            await self._wait_for_lease()
            return
        detail = "it ended twice over this request" if died else reason
        self.answer_error(EngineDied(lease.server.model.name, detail))

    def on_server_cut(self, server: RunningServer, why: Closing) -> None:
        """The server is about to be ended, whatever it answers: do not wait for that.

        One that had not begun to answer because it hangs is like one that died.
        """
        lease, upstream = self._lease, self._upstream
        if lease is None or lease.server is not server or upstream is None:
            return
        self._upstream = None
        upstream.abandon()
        reason = WHY_CUT[why]
        if self._head_sent:
            self._break_off(lease, reason)
        elif why is Closing.UNHEALTHY:
            self._spawn(self._after_failure(lease, reason))
        else:
            self.answer_error(EngineDied(lease.server.model.name, reason))

    async def _end_cut(self, lease: Lease, reason: str) -> None:
        """Say of what broke off whether its server died, or the way to it was cut."""
        if await self.shared.router.is_gone(lease.server):
            self._break_off(lease, reason)
        else:
            self._break_off(lease, "the connection to its machine was cut")
            # The next request need not find out by itself.
            self.shared.router.doubt(lease.server)

    async def _end_close_delimited(self, lease: Lease) -> None:
        """A body that ends with its connection is whole only if its engine lives."""
        if await self.shared.router.is_gone(lease.server):
            self._break_off(lease, "it ended while it answered")
        else:
            self.answer_ended()

    def _break_off(self, lease: Lease, reason: str) -> None:
        """After the first byte: an error event, or a broken transfer; never a clean-looking end.

        An event that was cut in the middle cannot be taken back, and would swallow ours.
        """
        self._release()
        between_events = not self.head or self.ends_with((b"\n\n", b"\r\n\r\n"))
        self.complete = False
        if not (self.is_event_stream and between_events):
            self.abort()
            return
        event = error_event(EngineDied(lease.server.model.name, reason), self.target)
        self.keep_alive = False
        self._out.append(chunk(event) + LAST_CHUNK if self._chunked else event)
        if not self._chunked and not self.http_1_0:
            # The engine had promised a length: the event does not fit in it.
            self._out.clear()
            self.abort()
            return
        self.flush()
        self.finish()

    def answer_error(self, error: GglibError, *, status: int | None = None) -> None:
        """Answer with ``error`` and go on to the connection's next request."""
        self._release()
        if self.disconnected or self.response_complete:
            return
        if self._vigil is not None and self._vigil.committed:
            self.complete = False
            self._vigil.end(error_event(error, self.target))
            self.finish()
            return
        self.answer_with(error, status=status, request_id=self.request_id)

    # Endings

    def on_client_gone(self) -> None:
        self.note_client_gone()
        self.disconnected = True
        self.response_complete = True
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None:
            self._upstream.abandon()
            self._upstream = None
        self._drop_body()
        self._release()

    def on_writable(self, writable: bool) -> None:
        if self._upstream is not None:
            if writable:
                self._upstream.resume_reading()
            else:
                self._upstream.pause_reading()

    def check(self, now: float) -> None:
        if self._vigil is not None:
            self._vigil.look(now)
        if self.spliced is not None and self.spliced.heard:
            self.spliced.heard = False
            self._heard = True
        limit_s = self.shared.limits.silence_timeout_s
        if self._heard or self.connection.flow.write_paused:
            # Noted here, not at every read: the hot path looks at no clock.
            self._heard = False
            self._silent_since = now
        if self._upstream is None or limit_s is None or now - self._silent_since <= limit_s:
            return
        upstream, self._upstream = self._upstream, None
        upstream.abandon()
        lease = self._lease
        assert lease is not None
        reason = f"it has said nothing for {limit_s:g} s"
        if self._head_sent:
            self._break_off(lease, reason)
        else:
            self.answer_error(EngineDied(lease.server.model.name, reason))

    def _drop_body(self) -> None:
        self._body = b""
        self._pieces = None

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.connection.loop.create_task(coroutine)
        self._task = task
        self.shared.tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.shared.tasks.discard(task)
        if self._task is task:
            self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours, or an adapter's: the client gets an answer, the log the trace.
            self.shared.on_task_error(error)
            if self._head_sent:
                self._release()
                self.abort()
            else:
                self.answer_error(
                    InvalidRequest("internal error", None, "internal_error"), status=500
                )
