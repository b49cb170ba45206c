"""What a client sends: read, bounded in size and time, and routed before an ASGI cycle exists."""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gglib.domain.access import Grant
from gglib.errors import GglibError, InvalidRequest
from gglib.gateway.ollama.errors import answer_at
from gglib.gateway.relay.heads import HeadBytes, RequestHead
from gglib.gateway.relay.passthrough import PassThroughTurn
from gglib.gateway.relay.relayed import RelayTurn
from gglib.gateway.relay.routes import (
    INFERENCE_PATHS,
    UPSTREAM_PREFIX,
    may_change,
    split_upstream,
)
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.relay.tunnel import TunnelTurn
from gglib.gateway.relay.turn_queue import OrderedConnection
from gglib.gateway.relay.turns import AnswerTurn, PreflightTurn, Turn
from gglib.services.routing.state import Closing
from gglib.services.serving import RunningServer

__all__ = ["GatewayProtocol"]

_DISCARDED_BODY_BYTES = 1024 * 1024
_QUEUED_BODY_BYTES = 64 * 1024


# What the next byte from the client belongs to. Plain numbers: they are compared at every read.
_BETWEEN, _HEAD, _BODY = 0, 1, 2

#: Targets that need no parsing.
_PLAIN_TARGETS = frozenset(path.encode() for path in INFERENCE_PATHS)


_SLASHES = re.compile("/{2,}")


class GatewayProtocol(OrderedConnection):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: RelayShared,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, shared=shared)
        self._phase = _BETWEEN
        self._read_bytes = 0
        self._first_read_bytes = 0
        self._head_bytes_unfinished = 0
        self._discarded_bytes = 0
        self._since = 0.0
        """When the present wait for the client began, to the precision of ``check``."""
        self._head: RequestHead | None = None
        """Of the latest request."""
        self._relayed: bytes | None = None
        """The target of the relayed request that the latest read has brought, if any."""
        self._known: HeadBytes | None = None
        """The latest request's head, when that was relayed and whole in one read."""
        self._known_target = b""
        self._relay_turn = shared.turns.relay
        self._tunnel: TunnelTurn | None = None
        """The connection's last turn, once it has left HTTP behind."""

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._pass_on(data)
            return
        phase = self._phase
        if phase == _BETWEEN and self._known is not None:
            body_at = self._known.body_at(data)
            if body_at >= 0 and len(data) - body_at <= self._limits.max_body_bytes:
                self._relay_known(data[body_at:])
                return
        self._relayed = None
        if phase == _HEAD:
            self._head_bytes_unfinished += len(data)
        elif phase == _BODY:
            self._moved = True
        self._read_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # What follows the head is no longer HTTP.
            self._deaf = True
            self._pass_on(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            self._callback_failed(error)
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is not an HTTP/1.1 request: {error}")
        else:
            if self._phase == _HEAD and self._head_bytes_unfinished > self._limits.max_header_bytes:
                self._refuse_head()
            elif self._relayed is not None and phase == self._phase == _BETWEEN:
                self._known, self._known_target = HeadBytes.of(data), self._relayed

    def _pass_on(self, data: bytes) -> None:
        """Take what is not to be read as HTTP: a tunnel's, or nobody's."""
        if self._tunnel is not None and data:
            self._tunnel.from_client(data)

    # Parser callbacks

    def on_message_begin(self) -> None:
        self._phase = _HEAD
        self._moved = True
        self._head_bytes_unfinished = 0
        self._first_read_bytes = self._read_bytes
        self._discarded_bytes = 0
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._phase = _BODY
        raw = self.headers
        # What comes as a trailer is nobody's header.
        self.headers = []
        if self._head_bytes_unfinished + self._first_read_bytes > self._limits.max_header_bytes:
            head_bytes = sum(len(name) + len(value) + 4 for name, value in raw)
            if head_bytes + len(self.url) > self._limits.max_header_bytes:
                self._refuse_head()
        if self._deaf:
            return
        head = self._head
        self._known = None
        if head is None or not head.is_again(raw):
            head = self._head = RequestHead(raw)
        parser = self.parser
        http_1_1 = parser.get_http_version() == "1.1"
        keep_alive = http_1_1 and parser.should_keep_alive() and not parser.should_upgrade()
        if self.url in _PLAIN_TARGETS and head.admitted and parser.get_method() == b"POST":
            # Who has just been let in with this head is let in again: nothing else decides.
            self._relay(self.url, head, http_1_1, keep_alive)
        else:
            self._route(head, http_1_1, keep_alive)

    def _route(self, head: RequestHead, http_1_1: bool, keep_alive: bool) -> None:
        method = self.parser.get_method()
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = _one_spelling(raw_path)
        if head.host is None and http_1_1:
            raise InvalidRequest("an HTTP/1.1 request needs a Host header")
        if head.origin is not None and method == b"OPTIONS":
            asked = head.value_of(b"access-control-request-headers")
            host, origin = _text(head.host), _text(head.origin)
            if self.shared.doors.welcomes(host=host, origin=origin):
                self._add_turn(PreflightTurn(self, head.cors_lines, asked, keep_alive=keep_alive))
                return
        upstream = None
        if raw_path.startswith(UPSTREAM_PREFIX):
            upstream = self._upstream_meant(raw_path)
        try:
            grant = self.shared.doors.admit(
                path,
                method=method.decode("ascii"),
                host=_text(head.host),
                origin=_text(head.origin),
                authorization=_text(head.authorization),
                fetch_site=_text(head.fetch_site),
                changes=upstream is not None and may_change(method, _one_spelling(upstream[1])),
            )
        except GglibError as error:
            self._add_refusal(error, None, head, keep_alive, head_only=method == b"HEAD")
            return
        if path in INFERENCE_PATHS and method == b"POST":
            head.admitted, head.grant = True, grant
            self._relay(_with_query(path.encode("ascii"), url.query), head, http_1_1, keep_alive)
        elif path in INFERENCE_PATHS:
            refusal = InvalidRequest(f"{path} takes POST", None, "method_not_allowed")
            self._add_refusal(refusal, 405, head, keep_alive, head_only=method == b"HEAD")
        elif not self._fits(head):
            pass
        elif upstream is not None:
            head.grant = grant
            name, rest = upstream
            target = _with_query(rest, url.query)
            protocol = head.value_of(b"upgrade") if self.parser.should_upgrade() else None
            turn: PassThroughTurn
            if protocol is not None and method == b"GET":
                self._tunnel = self.shared.turns.tunnel(
                    self, method, name, target, head, protocol.encode("latin-1")
                )
                turn = self._tunnel
            else:
                turn = self.shared.turns.pass_through(self, method, name, target, head, keep_alive)
            turn.http_1_0 = not http_1_1
            self._add_turn(turn)
        else:
            self._add_turn(
                self._asgi_cycle(method, path, raw_path, url.query, head, grant, keep_alive)
            )

    def _upstream_meant(self, raw_path: bytes) -> tuple[str, bytes]:
        """Return the model and the path that are meant: of several, the longest name known."""
        meanings = split_upstream(raw_path)
        for name, path in meanings:
            if self.shared.models.peek(name) is not None:
                return name, path
        return meanings[-1] if meanings else ("", b"/")

    def _relay(self, target: bytes, head: RequestHead, http_1_1: bool, keep_alive: bool) -> None:
        if not self._fits(head):
            return
        turn = self._relay_turn(self, target, head, keep_alive)
        if not http_1_1:
            turn.http_1_0 = True
        self._relayed = target if keep_alive else None
        if self._active is None and not self._queue and not self.flow.write_paused:
            self._latest = self._active = turn
            turn.activate()
        else:
            self._add_turn(turn)

    def _relay_known(self, body: bytes) -> None:
        """Relay a request that differs from the latest one in its body alone."""
        assert self._head is not None
        self._moved = True
        turn = self._relay_turn(self, self._known_target, self._head, True)
        turn.take_whole(body)
        if self._active is None and not self._queue and not self.flow.write_paused:
            self._latest = self._active = turn
            turn.activate()
        else:
            self._add_turn(turn)

    def _fits(self, head: RequestHead) -> bool:
        """Refuse a body that is announced as too large."""
        limit = self._limits.max_body_bytes
        if head.length is None or int(head.length) <= limit:
            return True
        self._deaf = True
        self._add_refusal(_too_large(limit), 413, head, False)
        return False

    def on_body(self, body: bytes) -> None:
        latest = self._latest
        if latest is None or self._deaf:
            return
        if latest.response_complete:
            # Answered before it was read: what is left of the body goes nowhere, in bounds.
            self._discarded_bytes += len(body)
            if self._discarded_bytes > _DISCARDED_BODY_BYTES:
                self._deaf = True
                self._linger()
        elif isinstance(latest, Turn):
            latest.on_body(body)
            if latest.body_bytes > _QUEUED_BODY_BYTES and not latest.active:
                self.flow.pause_reading()
        else:
            latest.body += body
            if len(latest.body) > _QUEUED_BODY_BYTES:
                self.flow.pause_reading()
            latest.message_event.set()

    def on_message_complete(self) -> None:
        self._phase = _BETWEEN
        latest = self._latest
        if latest is None or self._deaf:
            return
        if isinstance(latest, Turn):
            if not latest.response_complete:
                latest.on_request_complete()
        elif not latest.response_complete:
            latest.more_body = False
            latest.message_event.set()

    def refuse_body(self, turn: RelayTurn) -> None:
        """A body grew beyond its limit: the turn is refused, and the rest is not read."""
        self._deaf = True
        turn.refuse(_too_large(self._limits.max_body_bytes), 413)

    def renew(self) -> None:
        """Settings have changed: take up the limits, and have the door decide anew."""
        self._limits = self.shared.limits
        self._known = None
        if self._head is not None:
            self._head.admitted = False

    def server_cut(self, server: RunningServer, why: Closing) -> None:
        """An engine's server is about to be ended in the midst of its answers."""
        if isinstance(self._active, RelayTurn):
            self._active.on_server_cut(server, why)

    def check(self, now: float) -> None:
        """Look whether the client, or the engine behind an answer, takes too long."""
        limits = self._limits
        if self._lingering_since is not None:
            if now - self._lingering_since > limits.linger_s:
                self.transport.abort()
            return
        if self._write_paused_since is not None:
            if now - self._write_paused_since > limits.stall_timeout_s:
                self.transport.abort()
            return
        if self._moved:
            self._moved = False
            self._since = now
        waited_s = now - self._since
        if self._deaf:
            pass
        elif self._phase == _HEAD:
            if waited_s > limits.header_timeout_s:
                self._refuse(408, "the head of the request took too long")
        elif self._phase == _BODY:
            if waited_s > limits.stall_timeout_s and not self.flow.read_paused:
                self._refuse(408, "the body of the request took too long")
        elif self._active is None and waited_s > limits.keep_alive_s:
            self.transport.close()
        if isinstance(self._active, Turn):
            self._active.check(now)

    def _asgi_cycle(
        self,
        method: bytes,
        path: str,
        raw_path: bytes,
        query: bytes | None,
        head: RequestHead,
        grant: Grant,
        keep_alive: bool,
    ) -> RequestResponseCycle:
        request_id = head.request_id or self.shared.request_ids.make()
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": self.parser.get_http_version(),
            "method": method.decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": self.root_path,
            "path": path,
            "raw_path": raw_path,
            "query_string": query or b"",
            "headers": head.headers_now(),
            "state": {**self.app_state, "request_id": request_id.decode("ascii")},
            "auth": grant,
        }
        return RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[*_own_headers(head, request_id), *self.server_state.default_headers],
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def _linger(self) -> None:
        super()._linger()
        if self._tunnel is not None and not self.transport.can_write_eof():
            # TLS ends both ways at once, and a tunnel's client is told nothing else of the end.
            self.transport.close()

    # Refusals

    def _add_refusal(
        self,
        error: GglibError,
        status: int | None,
        head: RequestHead,
        keep_alive: bool,
        *,
        head_only: bool = False,
    ) -> None:
        """Queue a refusal of the request whose head was just read."""
        large = int(head.length or 0) > _DISCARDED_BODY_BYTES
        if large or head.is_chunked or head.expects_continue:
            self._deaf = True
        turn = AnswerTurn(
            self,
            answer_at(self._path_read(), error, status=status),
            keep_alive=keep_alive and not self._deaf,
            request_id=head.request_id,
            head_only=head_only,
            route=self.shared.meter.route_of(self.url),
        )
        if self.shared.doors.welcomes(host=_text(head.host), origin=_text(head.origin)):
            turn.cors_lines = head.cors_lines
        turn.request_complete = self._deaf
        self._add_turn(turn)

    def _refuse(self, status: int, reason: str) -> None:
        """Refuse what the client is sending now, after every answer it is still owed."""
        self._deaf = True
        error = InvalidRequest(reason)
        latest = self._latest if self._phase == _BODY else None
        if isinstance(latest, Turn) and not latest.response_complete:
            latest.refuse(error, status)
            return
        if isinstance(latest, RequestResponseCycle) and not latest.response_complete:
            latest.disconnected = True
            latest.message_event.set()
            if latest.response_started:
                self.transport.abort()
                return
            if latest is self._active:
                self._active = None
            else:
                self._queue.remove(latest)
        answer = answer_at(self._path_read(), error, status=status)
        head = self._head if self._phase == _BODY else None
        request_id = None if head is None else head.request_id
        turn = AnswerTurn(self, answer, keep_alive=False, request_id=request_id)
        turn.request_complete = True
        self._add_turn(turn)

    def _path_read(self) -> str:
        """Return the path of the request that is being read, as far as it is known."""
        if self._phase == _BETWEEN:
            return ""
        try:
            return _one_spelling(httptools.parse_url(self.url).path or b"")
        except httptools.HttpParserError:
            return ""

    def _refuse_head(self) -> None:
        limit = self._limits.max_header_bytes
        self._phase = _HEAD
        self._refuse(431, f"the head of the request is larger than {limit} bytes")

    def _callback_failed(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__ or error
        if isinstance(cause, InvalidRequest):
            self._phase = _HEAD
            self._refuse(400, str(cause))
        elif isinstance(cause, httptools.HttpParserError):
            self._phase = _HEAD
            self._refuse(400, f"the request's target is not a URL path: {cause}")
        else:
            self.shared.on_task_error(cause)
            self.transport.abort()


def _own_headers(head: RequestHead, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """Return what every answer of ours carries."""
    lines = head.cors_lines.split(b"\r\n")[:-1]
    pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    return [*pairs, (b"x-request-id", request_id)]


def _one_spelling(raw_path: bytes) -> str:
    """Return a path as the door and what is behind it read it: empty segments mean nothing."""
    path = raw_path.decode("ascii", "replace")
    return _SLASHES.sub("/", urllib.parse.unquote(path) if "%" in path else path)


def _with_query(path: bytes, query: bytes | None) -> bytes:
    return path + b"?" + query if query else path


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _too_large(limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"the body is larger than {limit} bytes, the limit of this gateway", None, "body_too_large"
    )
