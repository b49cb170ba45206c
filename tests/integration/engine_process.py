"""A child process of the embedded engine, and an adapter for its tiny model."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import anyio
import gguf
import httpx
import numpy as np

from gglib.domain.config import ServerConfig
from gglib_adapters.engines.embedded import EmbeddedEngine

#: Far beyond what is ever needed; a test that gets there has failed.
DEADLINE_S = 30.0
KEY = "secret-key"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """One child process, its log, and a client with its key."""

    def __init__(self, config: ServerConfig, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        engine = EmbeddedEngine("embedded", folder)
        anyio.run(engine.probe)
        assert engine.api_key_variable is not None
        self.log = folder / f"server-{self.port}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                engine.command(config, self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={
                    **os.environ,
                    **engine.environment(config),
                    engine.api_key_variable: KEY,
                },
            )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {KEY}"},
            timeout=DEADLINE_S,
            trust_env=False,
        )

    def text(self) -> str:
        """Return what it printed."""
        return self.log.read_text(errors="replace")

    def until_ready(self) -> Server:
        """Return when /health says 200; fail if the process ends, or never gets there."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                if self.client.get("/health").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            try:
                status = self.process.wait(0.005)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"it ended with {status}:\n{self.text()}")
        raise AssertionError(f"not ready:\n{self.text()}")

    def complete(self, prompt: str = "hello", **more: Any) -> dict[str, Any]:
        """Return eight tokens, the likeliest ones."""
        body = {"prompt": prompt, "n_predict": 8, "temperature": 0, "return_tokens": True}
        answer = self.client.post("/completion", json={**body, **more})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def close(self) -> None:
        """End it however it is."""
        self.client.close()
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lora(path: Path, seed: int) -> Path:
    """Write an adapter that changes what the tiny model says."""
    numbers = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for part in ("blk.0.attn_output.weight", "blk.1.attn_output.weight"):
        for side, shape in (("lora_a", (4, 64)), ("lora_b", (64, 4))):
            tensor = numbers.standard_normal(shape).astype(np.float32)
            writer.add_tensor(f"{part}.{side}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
