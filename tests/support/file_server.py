"""A server of files over real sockets, which answers as it is told: well, badly, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = [
    "Act",
    "FileServer",
    "Request",
    "chunked",
    "claiming",
    "cut_after",
    "file_server",
    "ignoring_conditions",
    "ignoring_ranges",
    "redirect",
    "status",
]


@dataclass(frozen=True)
class Request:
    """One request as it came: header names in lower case."""

    path: str
    headers: Mapping[str, str]

    @property
    def first_byte(self) -> int:
        """Where in the file it asks to begin."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass
class FileServer:
    """Files by path. ``acts`` are done for the next requests, one each, instead of serving."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str | None] = field(default_factory=dict)
    acts: dict[str, list[Act]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    pace: Callable[[], None] = lambda: None
    """Is called between pieces of a body: what it is when the body begins."""

    def put(self, path: str, content: bytes, *, etag: str | None = "") -> str:
        """Serve ``content`` there; its tag is made of it, unless one is given. Return its URL."""
        self.files[path] = content
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        self.etags[path] = tag if etag == "" else etag
        return self.address + path

    def then(self, path: str, *acts: Act) -> None:
        """Do these for the next requests of ``path``."""
        self.acts.setdefault(path, []).extend(acts)

    def asked(self, path: str) -> list[Request]:
        """Return the requests of ``path``."""
        return [request for request in self.requests if request.path == path]


Act = Callable[["_Handler"], None]


def status(code: int, **headers: str) -> Act:
    """Answer with a status and no file."""

    def act(handler: _Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return act


def redirect(url: str) -> Act:
    """Send elsewhere."""
    return status(302, location=url)


def cut_after(count: int) -> Act:
    """Break the connection after so many bytes of the body."""
    return lambda handler: handler.serve(limit=count)


def claiming(length: int) -> Act:
    """Say that the body has another length than it has."""
    return lambda handler: handler.serve(length=length)


def ignoring_ranges(handler: _Handler) -> None:
    """Send all of it, whatever was asked for."""
    handler.serve(ranges=False)


def ignoring_conditions(handler: _Handler) -> None:
    """Send what was asked for, though it is of another version by now."""
    handler.serve(conditions=False)


def chunked(handler: _Handler) -> None:
    """Send all of it without saying how much it is."""
    handler.serve(ranges=False, chunks=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.files.requests.append(Request(path, headers))
        self.close_connection = True
        acts = self.files.acts.get(path)
        if acts:
            acts.pop(0)(self)
        elif path in self.files.files:
            self.serve()
        else:
            status(404)(self)

    def serve(
        self,
        *,
        limit: int | None = None,
        length: int | None = None,
        ranges: bool = True,
        conditions: bool = True,
        chunks: bool = False,
    ) -> None:
        """Serve the file, as a server does that knows ranges and conditions."""
        request = self.files.requests[-1]
        path = self.path.partition("?")[0]
        content, etag = self.files.files[path], self.files.etags[path]
        first = request.first_byte if ranges else 0
        if conditions and request.headers.get("if-range", etag) != etag:
            first = 0
        if first >= len(content) > 0:
            status(416, content_range=f"bytes */{len(content)}")(self)
            return
        body = content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("content-range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if chunks:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(len(body) if length is None else length))
        if etag is not None:
            self.send_header("etag", etag)
        self.end_headers()
        self._send(body[:limit], chunks=chunks)

    def _send(self, body: bytes, *, chunks: bool) -> None:
        step, pace = 1 << 16, self.files.pace
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)
                self.wfile.flush()
            except OSError:  # the client has gone
                return
            pace()
        if chunks:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error."""


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve files on a port of this machine for the block."""
    files = FileServer()
    handler = type("Handler", (_Handler,), {"files": files})
    with _Server(("127.0.0.1", 0), handler) as server:
        files.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
