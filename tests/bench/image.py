"""One large request: a chat with an image of 10 MB in base64."""

from __future__ import annotations

import base64
import http.client
import json
import os
import statistics
import time

from bench.contenders import KEY, Contender
from bench.processes import BenchFailed, cpu_s, peak_rss, rss

__all__ = ["send_image"]

IMAGE_BYTES = 10_000_000
TIMES = 9


def _body() -> bytes:
    url = "data:image/png;base64," + base64.b64encode(os.urandom(IMAGE_BYTES)).decode()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    words = {"role": "user", "content": parts}
    return json.dumps({"model": "streams", "messages": [words]}).encode()


def send_image(contender: Contender) -> dict[str, float]:
    """Send it some times over one connection.

    Raises:
        BenchFailed: it was not taken.
    """
    body = _body()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    client = http.client.HTTPConnection("127.0.0.1", contender.stream_port, timeout=60)
    times_s = []
    before_bytes, before_s = rss(contender.processes), cpu_s(contender.processes)
    with peak_rss(contender.processes) as peak:
        for _ in range(TIMES):
            began = time.monotonic()
            client.request("POST", "/v1/chat/completions", body, headers)
            answer = client.getresponse()
            answer.read()
            times_s.append(time.monotonic() - began)
            if answer.status != 200:
                raise BenchFailed(f"{contender.name} answers {answer.status}")
    used_s = cpu_s(contender.processes) - before_s
    client.close()
    return {
        "ms": 1e3 * statistics.median(times_s),
        "cpu_ms": 1e3 * used_s / TIMES,
        "peak_mib": (peak[0] - before_bytes) / 2**20,
    }
