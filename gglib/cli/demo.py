"""``gglib demo``: a real engine, a real answer, nothing left behind."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from gglib.cli.options import COMMON, Common
from gglib.cli.output import print_json, say, size
from gglib.domain.model import ModelDefaults
from gglib.errors import ServerError
from gglib.services.demo.tiny_gguf import tiny_gguf

if TYPE_CHECKING:
    import httpx

__all__ = ["demo"]

_MODEL = "demo"
_PROMPT = "Hello! Who are you?"


def demo(*, common: Common = COMMON) -> None:
    """Serve a tiny model that is made on the spot, and ask it something.

    Needs no download: the model is random, so its words are, too. Everything else is real:
    the file, the engine, the gateway. Cleans up after itself.
    """
    steps = _Steps(quiet=common.json)
    with tempfile.TemporaryDirectory(prefix="gglib-demo-") as folder:
        path = Path(folder, f"{_MODEL}.gguf")
        path.write_bytes(tiny_gguf())
        steps.done("write", f"wrote a tiny GGUF model ({size(path.stat().st_size)})")
        uvloop = {"use_uvloop": sys.platform != "win32"}
        anyio.run(_serve_and_ask, path, steps, backend="asyncio", backend_options=uvloop)
    if common.json:
        print_json(steps.report)
    else:
        say("\nEverything is cleaned up. Next: `gglib model add PATH` and `gglib serve`.")


class _Steps:
    """Prints each step with the time it took, and keeps it for ``--json``."""

    def __init__(self, quiet: bool) -> None:
        self.report: dict[str, Any] = {}
        self._quiet = quiet
        self._began = time.perf_counter()

    def done(self, key: str, text: str, **facts: Any) -> None:
        """Report a step that has just ended."""
        now = time.perf_counter()
        elapsed_s, self._began = now - self._began, now
        self.report[key] = {"seconds": round(elapsed_s, 4), **facts}
        if not self._quiet:
            say(f"{elapsed_s * 1000:7.0f} ms  {text}")
            sys.stdout.flush()


async def _serve_and_ask(path: Path, steps: _Steps) -> None:
    from gglib.bootstrap import compose
    from gglib.gateway.serve import open_gateway
    from gglib.logs import SilentSink
    from gglib.services.intent import choose_engine
    from gglib.settings import load_settings

    flags = {"data_dir": path.parent / "data", "gateway.port": 0}
    settings = load_settings(flags=flags, environ={}).settings
    async with compose(settings, events=SilentSink()) as parts:
        models = await parts.models()
        model = await models.add(
            str(path),
            name=_MODEL,
            defaults=ModelDefaults(
                server={"context_size": 512, "embeddings": True, "pooling": "mean"}
            ),
        )
        steps.done("add", f"added it to a catalog: {model.name}, {model.facts.architecture}")
        engine = await choose_engine(await parts.engines(), model, None)
        probe = await engine.probe()
    steps.done("engine", f"found the engine: {engine.name} {probe.version}", name=engine.name)
    async with open_gateway(settings, events=SilentSink()) as gateway:
        steps.done("gateway", f"opened the gateway at {gateway.address}/v1")
        await _ask(gateway.address, steps)
    steps.done("stop", "stopped the engine and the gateway")


async def _ask(address: str, steps: _Steps) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=address, timeout=120, trust_env=False) as client:
        text, first_s = await _chat(client)
        steps.done(
            "chat",
            f"loaded the model and streamed a chat completion: {_shown(text)}",
            first_byte_seconds=round(first_s, 4),
            characters=len(text),
        )
        answer = await client.post("/v1/embeddings", json={"model": _MODEL, "input": _PROMPT})
        vector = _checked(answer)["data"][0]["embedding"]
        steps.done(
            "embedding", f"got an embedding of {len(vector)} numbers", dimensions=len(vector)
        )


async def _chat(client: httpx.AsyncClient) -> tuple[str, float]:
    body = {
        "model": _MODEL,
        "stream": True,
        "max_tokens": 24,
        "seed": 1,
        "messages": [{"role": "user", "content": _PROMPT}],
    }
    began = time.perf_counter()
    first_s = 0.0
    pieces: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            await response.aread()
            _checked(response)
        async for line in response.aiter_lines():
            first_s = first_s or time.perf_counter() - began
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise ServerError(event["error"]["message"])
            pieces += [choice["delta"].get("content") or "" for choice in event["choices"]]
    return "".join(pieces), first_s


def _checked(response: httpx.Response) -> dict[str, Any]:
    answer: dict[str, Any] = response.json()
    if response.is_error:
        raise ServerError(answer["error"]["message"])
    return answer


def _shown(text: str) -> str:
    """Return random bytes as something a terminal can bear."""
    return json.dumps("".join(c if c.isprintable() else "·" for c in text), ensure_ascii=False)
