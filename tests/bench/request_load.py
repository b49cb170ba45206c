"""Short requests: how many a second, how long each takes, and what CPU each costs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from bench.contenders import BODY, KEY, Contender
from bench.processes import BenchFailed, cpu_s

__all__ = ["sample"]


def sample(
    contender: Contender, *, connections: int, seconds: int, folder: Path
) -> dict[str, float]:
    """Measure one contender once.

    Raises:
        BenchFailed: requests failed.
    """
    before, began = cpu_s(contender.processes), time.monotonic()
    result = _wrk(contender.request_port, connections, seconds, folder)
    elapsed_s = time.monotonic() - began
    used_s = cpu_s(contender.processes) - before
    return {
        **result,
        "cpu_percent": 100 * used_s / elapsed_s,
        "cpu_us_per_request": 1e6 * used_s / max(1.0, result["requests_per_s"] * elapsed_s),
    }


def _wrk(port: int, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    script = folder / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [[{json.dumps(BODY)}]]\n"
        f'wrk.headers["Content-Type"] = "application/json"\n'
        f'wrk.headers["Authorization"] = "Bearer {KEY}"\n'
    )
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchFailed("wrk is not installed")
    output = subprocess.run(
        [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script),
         f"http://127.0.0.1:{port}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if "Non-2xx or 3xx responses" in output or "Socket errors" in output:
        raise BenchFailed(f"wrk met errors:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found
    if not float(found.group(1)):
        # What it was asked before is not done yet.
        raise BenchFailed(f"port {port} has answered nothing in {seconds} s")
    return {
        "requests_per_s": float(found.group(1)),
        "p50_us": _latency_us(output, "50%"),
        "p99_us": _latency_us(output, "99%"),
    }


def _latency_us(output: str, percentile: str) -> float:
    found = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", output)
    assert found
    return float(found.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6}[found.group(2)]
