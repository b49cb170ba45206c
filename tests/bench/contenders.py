"""What is compared: the bare upstream, nginx, gglib, and whoever else is installed.

All of them stand before the same two kinds of upstream: one that answers a constant, and one that
streams.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench.processes import BenchFailed, free_port, process, wait_for_port
from bench.upstream import nginx_config, write_config

__all__ = ["BODY", "KEY", "Contender", "post", "start_contenders"]

#: litellm starts with none that looks weak.
KEY = "sk-6f1d0c94be7a4c5d8f3e2b1a09c8d7e6"
BODY = {
    "model": "bench",
    "messages": [{"role": "user", "content": "Say hello to the people of the benchmark."}],
    "temperature": 0.7,
    "max_tokens": 64,
}
HERE = Path(__file__).parent
#: Some import for a while.
_PEER_START_S = 120.0


@dataclass
class Contender:
    """One way from a client to the two upstreams."""

    name: str
    request_port: int
    stream_port: int
    processes: list[psutil.Process]
    """Whose CPU and memory are its own."""
    peer: bool = False
    """Whether it is here only because it happens to be installed."""


def post(port: int, model: str = "bench") -> None:
    """Send one request, so that everything behind the port is warm.

    Raises:
        BenchFailed: it is not answered well.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({**BODY, "model": model}).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            json.load(response)
    except (urllib.error.URLError, ValueError) as error:
        raise BenchFailed(f"port {port} does not answer: {error}") from error


def start_contenders(stack: ExitStack, folder: Path, *, peers: bool) -> list[Contender]:
    """Start what is to be compared; ``stack`` ends it. ``peers``: whoever else is installed."""
    constant, streams = free_port(), free_port()
    upstreams = []
    for script, port in (("upstream.py", constant), ("stream_upstream.py", streams)):
        child = stack.enter_context(
            process([sys.executable, str(HERE / script), "--port", str(port)])
        )
        wait_for_port(port, child)
        upstreams += nginx_processes(child.pid) if port == constant else [psutil.Process(child.pid)]
    found = [
        Contender("upstream", constant, streams, upstreams),
        _nginx(stack, folder, constant, streams),
        _gglib(stack, folder),
    ]
    for name, start in (("vllm-router", _vllm_router), ("litellm", _litellm)):
        command = shutil.which(name)
        if command is None or not peers:
            continue
        try:
            peer = start(stack, folder, command, constant, streams)
            post(peer.request_port)
        except (BenchFailed, OSError) as error:
            print(f"{name} is installed, and left out: {error}", file=sys.stderr)
        else:
            found.append(peer)
    return found


def nginx_processes(master: int) -> list[psutil.Process]:
    """Return nginx's master and its worker, which comes after the port is there."""
    parent = psutil.Process(master)
    deadline = time.monotonic() + 10
    while not (workers := parent.children()):
        if time.monotonic() > deadline:
            raise BenchFailed("nginx has no worker")
        time.sleep(0.01)
    return [parent, *workers]


def _nginx(stack: ExitStack, folder: Path, constant: int, streams: int) -> Contender:
    request_port, stream_port = free_port(), free_port()
    place = folder / "nginx"
    place.mkdir()
    options = (
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off; "
        "client_max_body_size 64m;"
    )
    upstreams = (
        f"upstream constant {{ server 127.0.0.1:{constant}; keepalive 256; }}"
        f"upstream streams {{ server 127.0.0.1:{streams}; keepalive 256; }}"
        f"server {{ listen 127.0.0.1:{stream_port} backlog=4096; "
        f"location / {{ proxy_pass http://streams; {options} }} }}"
    )
    server = f"location / {{ proxy_pass http://constant; {options} }}"
    command = write_config(place, nginx_config(place, request_port, server, upstreams))
    child = stack.enter_context(process(command))
    for port in (request_port, stream_port):
        wait_for_port(port, child)
    return Contender("nginx", request_port, stream_port, nginx_processes(child.pid))


def _gglib(stack: ExitStack, folder: Path) -> Contender:
    port = free_port()
    (folder / "model.gguf").write_bytes(b"the benchmark's engines read no model")
    text = f'[gateway]\nport = {port}\napi_keys = ["{KEY}"]\n'
    for name, script in (("bench", "upstream.py"), ("streams", "stream_upstream.py")):
        engine = json.dumps([sys.executable, str(HERE / script), "--port", "{port}"])
        text += (
            f'[engines.{name}]\nhealth_path = "/"\ncommand = {engine}\n'
            f'[models.{name}]\npath = "{folder / "model.gguf"}"\nengine = "{name}"\n'
        )
    config = folder / "gglib.toml"
    config.write_text(text)
    program = shutil.which("gglib") or str(Path(sys.executable).with_name("gglib"))
    command = [program, "serve", "--config", str(config), "--data-dir", str(folder / "data")]
    child = stack.enter_context(process(command, stderr=subprocess.DEVNULL))
    wait_for_port(port, child)
    return Contender("gglib", port, port, [psutil.Process(child.pid)])


def _vllm_router(
    stack: ExitStack, folder: Path, program: str, constant: int, streams: int
) -> Contender:
    """It spreads one model's requests over workers that are alike: so there are two of it."""
    ports, processes = [], []
    for upstream in (constant, streams):
        port = free_port()
        command = [program, "--host", "127.0.0.1", "--port", str(port),
                   "--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin",
                   "--prometheus-port", str(free_port()), "--log-level", "error"]  # fmt: skip
        child = stack.enter_context(process(command, stdout=subprocess.DEVNULL))
        wait_for_port(port, child, timeout_s=_PEER_START_S)
        ports.append(port)
        processes.append(psutil.Process(child.pid))
    return Contender("vllm-router", ports[0], ports[1], processes, peer=True)


def _litellm(
    stack: ExitStack, folder: Path, program: str, constant: int, streams: int
) -> Contender:
    port = free_port()
    config = folder / "litellm.json"
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": f"http://127.0.0.1:{upstream}/v1",
                "api_key": "none",
            },
        }
        for name, upstream in (("bench", constant), ("streams", streams))
    ]
    # JSON is YAML.
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    child = stack.enter_context(
        process(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    wait_for_port(port, child, timeout_s=_PEER_START_S)
    return Contender("litellm", port, port, [psutil.Process(child.pid)], peer=True)
