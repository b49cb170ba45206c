"""Many streams at once: the CPU of whoever relays them, their lag, and the memory they take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from bench.contenders import KEY, Contender
from bench.processes import BenchFailed, cpu_s, rss

__all__ = ["relay_streams"]

_LOAD = Path(__file__).with_name("stream_load.py")
_LOOK_EVERY_S = 0.1
#: The part of a run in which streams only go on: none begins, none ends.
_STEADY = (0.25, 0.9)


def relay_streams(
    contender: Contender, *, streams: int, rate: int, seconds: int
) -> dict[str, float]:
    """Read so many streams through a contender, each of ``rate`` chunks a second.

    Raises:
        BenchFailed: the load did not end.
    """
    command = [sys.executable, str(_LOAD), "--port", str(contender.stream_port), "--key", KEY,
               "--streams", str(streams), "--rate", str(rate),
               "--chunks", str(rate * seconds)]  # fmt: skip
    processes = contender.processes
    before_s, idle_bytes = cpu_s(processes), rss(processes)
    peak_bytes = idle_bytes
    steady: list[tuple[float, float]] = []
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as load:
        while load.poll() is None:
            peak_bytes = max(peak_bytes, rss(processes))
            now = time.monotonic()
            if seconds * _STEADY[0] < now - began < seconds * _STEADY[1]:
                steady.append((now, cpu_s(processes)))
            time.sleep(_LOOK_EVERY_S)
        assert load.stdout is not None
        output = load.stdout.read()
    if load.returncode:
        raise BenchFailed(f"{contender.name}: streams could not be read")
    used_s = cpu_s(processes) - before_s
    found: dict[str, float] = json.loads(output)
    (first_at, first_s), (last_at, last_s) = steady[0], steady[-1]
    return {
        **found,
        "cpu_percent": 100 * (last_s - first_s) / (last_at - first_at),
        "cpu_us_per_chunk": 1e6 * used_s / max(1, found["chunks"]),
        "idle_mib": idle_bytes / 2**20,
        "kib_per_stream": (peak_bytes - idle_bytes) / 1024 / streams,
    }
