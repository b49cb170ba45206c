"""Requests per second, latency, CPU and memory: bare upstream, nginx, and gglib, in one run.

``nox -s bench`` runs it. Machines are noisy: only the ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from bench.upstream import nginx_config, write_config

ROUNDS = 5
HERE = Path(__file__).parent
KEY = "bench-key"
BODY = {
    "model": "bench",
    "messages": [{"role": "user", "content": "Say hello to the people of the benchmark."}],
    "temperature": 0.7,
    "max_tokens": 64,
}


def free_port() -> int:
    """Return a port nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the block."""
    child = subprocess.Popen(command, **options)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(30)


def wait_for_port(port: int) -> None:
    """Return when somebody listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def post(port: int) -> None:
    """Send one request, so that everything behind the port is warm."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(BODY).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        json.load(response)


def family(pid: int) -> list[psutil.Process]:
    """Return a process and those it started that are its own workers."""
    parent = psutil.Process(pid)
    workers = [child for child in parent.children() if child.name() == parent.name()]
    return [parent, *workers]


def cpu_s(processes: list[psutil.Process]) -> float:
    """Return the CPU seconds the processes have used."""
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def load(port: int, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    """Run wrk and return what it measured."""
    script = folder / "post.lua"
    headers = f'wrk.headers["Authorization"] = "Bearer {KEY}"\n'
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [[{json.dumps(BODY)}]]\n"
        f'wrk.headers["Content-Type"] = "application/json"\n{headers}'
    )
    wrk = shutil.which("wrk") or sys.exit("wrk is not installed")
    output = subprocess.run(
        [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script),
         f"http://127.0.0.1:{port}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if errors or "Socket errors" in output:
        sys.exit(f"wrk met errors:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found
    return {
        "requests_per_s": float(found.group(1)),
        "p50_us": latency_us(output, "50%"),
        "p99_us": latency_us(output, "99%"),
    }


def latency_us(output: str, percentile: str) -> float:
    """Return a latency of wrk's in microseconds."""
    found = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", output)
    assert found
    return float(found.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6}[found.group(2)]


def sample(
    processes: list[psutil.Process], port: int, connections: int, seconds: int, folder: Path
) -> dict[str, float]:
    """Measure one server once."""
    before, began = cpu_s(processes), time.monotonic()
    result = load(port, connections, seconds, folder)
    elapsed_s = time.monotonic() - began
    used_s = cpu_s(processes) - before
    return {
        **result,
        "cpu_percent": 100 * used_s / elapsed_s,
        "cpu_us_per_request": 1e6 * used_s / (result["requests_per_s"] * elapsed_s),
    }


def measure(
    servers: dict[str, tuple[int, int]], seconds: int, folder: Path
) -> list[dict[str, Any]]:
    """Measure all servers in turns, so that they share the machine's moods; report medians."""
    rows: dict[str, dict[str, Any]] = {}
    for name, (port, pid) in servers.items():
        post(port)
        load(port, 32, 1, folder)
        rows[name] = {"name": name, "processes": family(pid)}
    for connections in (32, 1):
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, (port, _pid) in servers.items():
                samples[name].append(
                    sample(rows[name]["processes"], port, connections, seconds, folder)
                )
        for name, found in samples.items():
            rows[name][f"c{connections}"] = {
                key: round(statistics.median(each[key] for each in found), 1) for key in found[0]
            }
        if connections == 32:
            ratios = [
                ours["requests_per_s"] / theirs["requests_per_s"]
                for ours, theirs in zip(samples["gglib"], samples["nginx"], strict=True)
            ]
            rows["gglib"]["ratios_to_nginx"] = [round(ratio, 3) for ratio in ratios]
    for row in rows.values():
        resident = sum(each.memory_info().rss for each in row.pop("processes"))
        row["rss_mib"] = round(resident / 2**20, 1)
    return list(rows.values())


def run(seconds: int) -> list[dict[str, Any]]:
    """Measure all three and return their rows."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gglib-bench-")))
        upstream, proxy, gateway = free_port(), free_port(), free_port()
        bare = stack.enter_context(
            process([sys.executable, str(HERE / "upstream.py"), "--port", str(upstream)])
        )
        (folder / "proxy").mkdir()
        command = write_config(
            folder / "proxy",
            nginx_config(
                folder / "proxy",
                proxy,
                "location / { proxy_pass http://up; proxy_http_version 1.1; "
                'proxy_set_header Connection ""; proxy_buffering off; }',
                f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; }}",
            ),
        )
        nginx = stack.enter_context(process(command))
        config = folder / "gglib.toml"
        engine = [sys.executable, str(HERE / "upstream.py"), "--port", "{port}"]
        (folder / "bench.gguf").write_bytes(b"the benchmark's engine reads no model")
        config.write_text(
            f'[gateway]\nport = {gateway}\napi_keys = ["{KEY}"]\n'
            f'[engines.bench]\nhealth_path = "/"\n'
            f"command = {json.dumps(engine)}\n"
            f'[models.bench]\npath = "{folder / "bench.gguf"}"\nengine = "bench"\n'
        )
        ours = stack.enter_context(
            process(
                [shutil.which("gglib") or "gglib", "serve", "--config", str(config),
                 "--data-dir", str(folder / "data")],
                stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        for port in (upstream, proxy, gateway):
            wait_for_port(port)
        rss_idle = psutil.Process(ours.pid).memory_info().rss
        servers = {
            "upstream": (upstream, bare.pid),
            "nginx": (proxy, nginx.pid),
            "gglib": (gateway, ours.pid),
        }
        rows = measure(servers, seconds, folder)
        rows[-1]["rss_idle_mib"] = round(rss_idle / 2**20, 1)
        return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as people read them, with the ratios that count."""
    lines = [f"{'':10}{'req/s @32':>11}{'p50 µs':>8}{'p99 µs':>8}{'CPU %':>7}{'µs/req':>8}"
             f"{'req/s @1':>10}{'p50 µs':>8}{'RSS MiB':>9}"]  # fmt: skip
    for row in rows:
        many, one = row["c32"], row["c1"]
        lines.append(
            f"{row['name']:10}{many['requests_per_s']:11.0f}{many['p50_us']:8.0f}"
            f"{many['p99_us']:8.0f}{many['cpu_percent']:7.0f}{many['cpu_us_per_request']:8.1f}"
            f"{one['requests_per_s']:10.0f}{one['p50_us']:8.0f}{row['rss_mib']:9.1f}"
        )
    by_name = {row["name"]: row for row in rows}
    ratios = by_name["gglib"]["ratios_to_nginx"]
    added = by_name["gglib"]["c1"]["p50_us"] - by_name["upstream"]["c1"]["p50_us"]
    lines.append(
        f"gglib / nginx at 32 connections: {statistics.median(ratios):.2f} "
        f"(rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )
    lines.append(f"added to the upstream's p50 at 1 connection: {added:.0f} µs")
    lines.append(f"gglib idle: {by_name['gglib']['rss_idle_mib']} MiB resident")
    return "\n".join(lines)


def main() -> None:
    """Run, print the table, and write the JSON where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = run(options.seconds)
    print(table(rows))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"written: {options.json}")


if __name__ == "__main__":
    main()
