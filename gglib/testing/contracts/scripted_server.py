"""A server whose answers are bytes, right or wrong: for contracts of what asks servers."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias
from urllib.parse import quote

__all__ = ["Answer", "Peer", "ScriptedServer", "http_answer", "serve_scripted"]

_MAX_REQUEST_BYTES = 65_536
_TICK_S = 0.005
_CHUNK_BYTES = 65_536


class Peer:
    """The server's side of one connection."""

    def __init__(self, connection: socket.socket, ended: threading.Event) -> None:
        self._connection = connection
        self._ended = ended
        self.sent_bytes = 0

    def send(self, data: bytes) -> bool:
        """Send it all; return whether that went well."""
        view = memoryview(data)
        while view and not self._ended.is_set():
            # A full window must not keep the thread from seeing the end.
            if not select.select((), (self._connection,), (), _TICK_S)[1]:
                continue
            try:
                count = self._connection.send(view[:_CHUNK_BYTES])
            except OSError:
                return False
            self.sent_bytes += count
            view = view[count:]
        return not view

    def send_slowly(self, data: bytes, pause_s: float = 0.1) -> None:
        """Send a byte at a time, up to the end of the client or the server."""
        for index in range(len(data)):
            if not self.send(data[index : index + 1]) or self._ended.wait(pause_s):
                return

    def send_for_ever(self, data: bytes) -> None:
        """Send it again and again, up to the end of the client or the server."""
        while self.send(data):
            pass

    def wait_closed(self) -> None:
        """Return when the client has closed the connection, or the server has ended."""
        self._connection.setblocking(False)
        while not self._ended.is_set():
            if not select.select((self._connection,), (), (), _TICK_S)[0]:
                continue
            try:
                if not self._connection.recv(_CHUNK_BYTES):
                    return
            except OSError:
                return


#: What is sent, before the connection is closed; or what does it.
Answer: TypeAlias = bytes | Callable[[Peer], None]


class ScriptedServer:
    """Gives the same answer to every request; keeps their heads in ``requests``."""

    def __init__(self, answer: Answer, path: str | None = None) -> None:
        self.requests: list[str] = []
        self.peers: list[Peer] = []
        self._answer = answer
        self._open = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(128)
            self.base_url = f"http+unix://{quote(path)}"

    @property
    def open_connections(self) -> int:
        """How many clients have not closed yet."""
        return self._open

    @property
    def sent_bytes(self) -> int:
        """How much its clients have taken, or their kernels for them."""
        return sum(peer.sent_bytes for peer in self.peers)

    def run(self) -> None:
        """Answer until it is closed."""
        threads = []
        while not self._ended.is_set():
            if select.select((self._listener,), (), (), _TICK_S)[0]:
                connection, _ = self._listener.accept()
                threads.append(threading.Thread(target=self._converse, args=(connection,)))
                threads[-1].start()
        for thread in threads:
            thread.join()
        self._listener.close()

    def close(self) -> None:
        """Cut every connection, and listen no more."""
        self._ended.set()

    def _converse(self, connection: socket.socket) -> None:
        peer = Peer(connection, self._ended)
        with self._lock:
            self._open += 1
            self.peers.append(peer)
        with connection, suppress(OSError):
            head = self._head(connection)
            if head:
                self.requests.append(head)
                if callable(self._answer):
                    self._answer(peer)
                else:
                    peer.send(self._answer)
        with self._lock:
            self._open -= 1

    def _head(self, connection: socket.socket) -> str:
        read = b""
        while b"\r\n\r\n" not in read and len(read) < _MAX_REQUEST_BYTES:
            if self._ended.is_set():
                return ""
            if select.select((connection,), (), (), _TICK_S)[0]:
                data = connection.recv(_CHUNK_BYTES)
                if not data:
                    return ""
                read += data
        return read.decode("latin-1")


def http_answer(body: object, *, status: int = 200, headers: str = "") -> bytes:
    """Return a whole HTTP answer with ``body``: bytes, or a document for JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


@contextmanager
def serve_scripted(answer: Answer, path: str | None = None) -> Iterator[ScriptedServer]:
    """Serve on a free port of this machine for the block, in a thread of its own.

    ``path``: on a Unix socket there instead.
    """
    server = ScriptedServer(answer, path)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
