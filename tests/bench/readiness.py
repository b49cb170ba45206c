"""How long a waiting request goes on waiting once its engine is ready, from cold, in milliseconds.

``PYTHONPATH=tests python tests/bench/readiness.py`` runs it. Both moments are read from this
machine's clock: the engine prints when it became ready, and the client notes when the first
byte of its answer arrived.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support.commands import Home, stub_config

ROUNDS = 20
LOAD_S = 0.3
LIMIT_MS = 30.0
MODEL = "cold"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()


class Client:
    """One keep-alive connection, and as little as possible around it."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        assert url.hostname is not None
        assert url.port is not None
        self._socket = socket.create_connection((url.hostname, url.port), timeout=60)
        self._request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {url.netloc}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY

    def first_byte_at(self) -> float:
        """Send the request; return the Unix time of the answer's first byte, the rest read too."""
        self._socket.sendall(self._request)
        answer = self._socket.recv(1)
        at = time.time()
        while b"\r\n\r\n" not in answer:
            answer += self._received()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            sys.exit(f"the gateway answered {head.decode()}")
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        while len(body) < int(length[1]):
            body += self._received()
        return at

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _received(self) -> bytes:
        return self._socket.recv(65536) or sys.exit("the gateway closed the connection")


def unload(home: Home) -> None:
    """Have the model's server stopped; return when it is gone."""
    note = json.loads((home.path / "gateway.json").read_text())
    request = urllib.request.Request(
        f"{note['address']}/admin/models/{MODEL}/unload",
        b"",
        {"Authorization": f"Bearer {note['admin_token']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()


def ready_at(home: Home) -> float:
    """Return the Unix time that the newest engine printed when it became ready."""
    newest = max((home.path / "logs").glob(f"{MODEL}-*.log"))  # ULIDs sort by time
    found = re.search(r"^ready at ([\d.]+)$", newest.read_text(), re.MULTILINE)
    assert found, newest.read_text()
    return float(found[1])


def measure(rounds: int) -> list[float]:
    """Return the milliseconds of each round."""
    times = []
    with tempfile.TemporaryDirectory(prefix="gglib-bench-") as folder:
        home = Home.make(Path(folder))
        home.configure(stub_config(MODEL, load_s=LOAD_S), MODEL)
        with home.serve() as served:
            client = Client(served.address)
            for _ in range(rounds):
                first_byte_at = client.first_byte_at()
                times.append(1000 * (first_byte_at - ready_at(home)))
                unload(home)
            client.close()
    return times


def main() -> int:
    """Measure, print the median and the maximum, and fail when the median is over its limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times = measure(options.rounds)
    result: dict[str, Any] = {
        "rounds": options.rounds,
        "median_ms": round(statistics.median(times), 2),
        "max_ms": round(max(times), 2),
        "limit_ms": LIMIT_MS,
    }
    over = result["median_ms"] > LIMIT_MS
    print(
        f"engine ready to first byte: median {result['median_ms']:.1f} ms "
        f"(limit {LIMIT_MS:.0f} ms{', EXCEEDED' if over else ''}), "
        f"max {result['max_ms']:.1f} ms, {options.rounds} cold starts"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result["rounds_ms"] = [round(each, 2) for each in times]
        options.json.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written: {options.json}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
