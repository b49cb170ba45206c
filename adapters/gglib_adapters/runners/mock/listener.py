"""HTTP/1.1 on a port of this machine, in threads: what is answered is somebody else's to say."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import attrs

from gglib_adapters.runners.mock.openai_answers import Refused, error_document

__all__ = ["MAX_BODY_BYTES", "Answer", "Cut", "EventStream", "Listener", "Responder"]

#: A request with a larger body is refused.
MAX_BODY_BYTES = 64 * 1024 * 1024

_HOST = "127.0.0.1"
_WAKE_TIMEOUT_S = 1.0
_NO_HEADERS: Mapping[str, str] = {}


class Cut(Exception):
    """The connection is to be cut, wherever it stands."""


@attrs.frozen
class Answer:
    """An answer that is sent whole, as JSON."""

    status: int
    document: Any
    headers: Mapping[str, str] = _NO_HEADERS


@attrs.frozen
class EventStream:
    """An answer in server-sent events; raising ``Cut`` breaks it off."""

    events: Iterator[str]


#: From method, path, headers and body to an answer; may raise ``Refused`` and ``Cut``.
Responder: TypeAlias = Callable[[str, str, Mapping[str, str], bytes], Answer | EventStream]


class Listener(ThreadingHTTPServer):
    """Listens from the moment it is made until ``close``, and answers by ``respond``.

    ``admits`` says whether connections are let in. Its threads are daemons.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    # What is left of ended connections is not in the way; on Windows this would share ports.
    allow_reuse_address = os.name == "posix"
    request_queue_size = 128

    def __init__(self, port: int, respond: Responder, admits: Callable[[], bool]) -> None:
        self.respond = respond
        self.closing = threading.Event()
        self._admits = admits
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((_HOST, port), _Exchange)
        self._acceptor = threading.Thread(
            target=self._accept, name=f"mock-engine-{self.server_port}", daemon=True
        )
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening and cut what is open, at once. Any number of times."""
        if self.closing.is_set():
            return
        self.closing.set()
        # Wakes the acceptor, on every system.
        with suppress(OSError):
            socket.create_connection((_HOST, self.server_port), timeout=_WAKE_TIMEOUT_S).close()
        self._acceptor.join()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.closing.is_set():
            self.handle_request()

    def server_bind(self) -> None:
        """Bind; without the look-up of the host's name that the base makes."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, int(self.allow_reuse_address)
        )
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = _HOST, self.socket.getsockname()[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Let a connection in, or close it unanswered."""
        del request, client_address
        return not self.closing.is_set() and self._admits()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; ``close`` must not meet one that is half closed."""
        with self._lock:
            self._connections.discard(request)
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what ends up here is a connection that broke, or was cut."""


class _Exchange(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def do_GET(self) -> None:
        """Answer a request."""
        try:
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = self.server.respond(self.command, self.path, headers, body)
            if isinstance(answer, Answer):
                self._send(answer)
            else:
                self._stream(answer.events)
        except Refused as refused:
            self._send(Answer(refused.status, _refusal(refused)))
        except Cut:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - as the base calls them

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, in OpenAI's shape."""
        self.close_connection = True
        self._send(Answer(code, error_document(code, message or explain or "bad request")))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are recorded."""

    def _body(self) -> bytes:
        if "transfer-encoding" in self.headers:
            self.close_connection = True
            raise Refused(411, "a body must come with its content-length")
        length = self.headers.get("content-length", "0")
        if not length.isdecimal():
            self.close_connection = True
            raise Refused(400, f"content-length is {length!r}; expected a number of bytes")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Cut
        return body

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.document).encode()
        self.send_response_only(answer.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: Iterator[str]) -> None:
        self.send_response_only(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            content = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.write(b"0\r\n\r\n")


def _refusal(refused: Refused) -> dict[str, Any]:
    return error_document(refused.status, refused.message, param=refused.param)
