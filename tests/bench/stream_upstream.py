"""The engine of the streams' benchmark: many SSE streams at an even pace, each chunk with its time.

A request asks for its stream in the words of its message: ``100 chunks at 10/s``. Each chunk says
when it was made (``@`` and nanoseconds of the machine's monotonic clock), whether its reader keeps
up or not. One loop over epoll and a heap: a chunk costs a few microseconds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import re
import select
import socket
import time
from collections.abc import Iterator

TICK_S = 0.001
#: So many connections are awaited when a thousand streams begin at once.
BACKLOG = 4096
#: Of a request: images are only taken.
_LOOKED_AT_BYTES = 16 * 1024
_ASKED = re.compile(rb"(\d+) chunks at (\d+)/s")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"cache-control: no-cache\r\n\r\n"
)
_WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"streams","choices":[{'
    b'"index":0,"message":{"role":"assistant","content":"Seen."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}'
)
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_WHOLE),
    _WHOLE,
)


def event(content: str, finish: str | None = None, **more: object) -> bytes:
    """Return one chunk of a chat completion, framed for the wire."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    told = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "streams",
        "choices": [choice],
        **more,
    }
    return _framed(b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_BEFORE, _BEHIND = event("@" + "0" * 19).split(b"0" * 19)
_USAGE = {"prompt_tokens": 9, "completion_tokens": 100, "total_tokens": 109}
_END = event("", "stop", usage=_USAGE) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Stream:
    """One client's connection, and the stream that it reads."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.left = 0
        self.interval_s = 0.0
        self.unsent = b""
        self.open = True

    def fileno(self) -> int:
        """See ``select.epoll``."""
        return self.connection.fileno()

    def send(self, data: bytes) -> None:
        """Send what goes; the rest waits for the next time."""
        data = self.unsent + data if self.unsent else data
        try:
            sent = self.connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self.unsent = data[sent:]

    def close(self) -> None:
        """Forget the client."""
        self.open = False
        self.connection.close()

    def requests(self) -> Iterator[bytes]:
        """Read, and yield the requests that are whole: of each its beginning."""
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.received += data
        while (end := self.received.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(self.received, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            yield bytes(self.received[: min(whole, _LOOKED_AT_BYTES)])
            del self.received[:whole]


class Engine:
    """All streams, and the one loop that feeds them."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._streams: dict[int, Stream] = {}
        self._due: list[tuple[float, int, Stream]] = []
        self._number = 0

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            wait_s = max(TICK_S, self._due[0][0] - time.monotonic()) if self._due else None
            for number, _ in self._poll.poll(wait_s):
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._read(self._streams[number])
            self._feed()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._streams[connection.fileno()] = Stream(connection)
            self._poll.register(connection, select.EPOLLIN)

    def _read(self, stream: Stream) -> None:
        number = stream.fileno()
        for request in stream.requests():
            asked = _ASKED.search(request)
            if asked is None:
                stream.send(_PLAIN)
                continue
            stream.left, stream.interval_s = int(asked[1]), 1 / int(asked[2])
            stream.send(_HEAD)
            self._number += 1
            # Streams begin where the one before has left room: they share the interval evenly.
            offset_s = stream.interval_s * (self._number * 0.618 % 1)
            heapq.heappush(self._due, (time.monotonic() + offset_s, self._number, stream))
        if not stream.open:
            del self._streams[number]

    def _feed(self) -> None:
        due, now = self._due, time.monotonic()
        data = b"%b%019d%b" % (_BEFORE, time.monotonic_ns(), _BEHIND)
        while due and due[0][0] <= now:
            at, number, stream = due[0]
            if not stream.open:
                heapq.heappop(due)
                continue
            if stream.left:
                stream.left -= 1
                stream.send(data)
            elif not stream.unsent:
                stream.send(_END)
                heapq.heappop(due)
                continue
            else:
                stream.send(b"")
            if stream.open:
                heapq.heapreplace(due, (at + stream.interval_s, number, stream))
            else:
                heapq.heappop(due)


def main() -> None:
    """Serve on the port that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    Engine(parser.parse_args().port).run()


if __name__ == "__main__":
    main()
