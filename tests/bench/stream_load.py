"""Reads many streams at once, and measures how far behind their chunks arrive.

Run as a process of its own, it prints what it found as JSON. Chunks carry the time at which they
were made; see ``stream_upstream.py``.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time
from array import array

_STAMP_DIGITS = 19
#: Beyond the time that the streams take by themselves.
PATIENCE_S = 60.0


class Reader:
    """One stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.carried = b""
        self.last = b""
        self.chunks = 0
        self.worst_ns = 0
        self.lags_ns: array[int] = array("q")

    def take(self, data: bytes, now_ns: int) -> None:
        """Note the chunks that came in one read."""
        if self.carried:
            data, self.carried = self.carried + data, b""
        at = data.find(b"@")
        while at >= 0:
            stamp = data[at + 1 : at + 1 + _STAMP_DIGITS]
            if len(stamp) < _STAMP_DIGITS:
                self.carried = data[at:]
                break
            self.chunks += 1
            self.lags_ns.append(now_ns - int(stamp))
            at = data.find(b"@", at + _STAMP_DIGITS)
        if len(data) >= 64:
            self.last = data[-64:]
        else:
            self.last = (self.last + data)[-64:]

    @property
    def ended(self) -> bool:
        """Whether the answer's end has come."""
        return b"data: [DONE]" in self.last and self.last.endswith(b"0\r\n\r\n")


def request(target: str, key: str, chunks: int, rate: int) -> bytes:
    """Return the request for one stream."""
    words = {"role": "user", "content": f"Send {chunks} chunks at {rate}/s."}
    body = json.dumps({"model": "streams", "stream": True, "messages": [words]}).encode()
    return (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def read_streams(
    port: int, *, streams: int, chunks: int, rate: int, key: str
) -> dict[str, float | int]:
    """Read so many streams of so many chunks, ``rate`` of them a second, and tell how it went."""
    poll = select.epoll()
    readers: dict[int, Reader] = {}
    question = request("/v1/chat/completions", key, chunks, rate)
    began = time.monotonic()
    for _ in range(streams):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(question)
        connection.setblocking(False)
        readers[connection.fileno()] = Reader(connection)
        poll.register(connection, select.EPOLLIN)
    unended = set(readers)
    deadline = time.monotonic() + chunks / rate + PATIENCE_S
    while unended and time.monotonic() < deadline:
        for number, _ in poll.poll(1.0):
            reader = readers[number]
            data = reader.connection.recv(65536)
            if data:
                reader.take(data, time.monotonic_ns())
            if not data or reader.ended:
                poll.unregister(number)
                unended.discard(number)
    took_s = time.monotonic() - began
    for reader in readers.values():
        reader.connection.close()
    lags_ms = sorted(lag / 1e6 for reader in readers.values() for lag in reader.lags_ns)
    worst_ms = sorted(max(reader.lags_ns, default=0) / 1e6 for reader in readers.values())
    return {
        "streams": streams,
        "whole": sum(each.chunks == chunks and each.ended for each in readers.values()),
        "chunks": len(lags_ms),
        "took_s": took_s,
        "lag_p50_ms": _quantile(lags_ms, 0.5),
        "lag_p99_ms": _quantile(lags_ms, 0.99),
        "lag_max_ms": _quantile(lags_ms, 1.0),
        "over_50_ms": sum(worst > 50 for worst in worst_ms),
    }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def main() -> None:
    """Read, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--chunks", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    print(
        json.dumps(
            read_streams(
                options.port,
                streams=options.streams,
                chunks=options.chunks,
                rate=options.rate,
                key=options.key,
            )
        )
    )


if __name__ == "__main__":
    main()
