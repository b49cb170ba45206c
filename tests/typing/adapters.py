"""What a type checker knows of ports and mocks: checked, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_type

import gglib
from gglib.errors import StartFailed
from gglib.ports import AdapterContext, AdapterFactory, Engine, ModelSource, ProcessRunner
from gglib.testing import (
    FakeClock,
    MockEngineServer,
    MockGateway,
    MockRequest,
    MockRunner,
    MockScript,
    make_context,
)


class HalfARunner(ProcessRunner):
    """A runner that lacks methods cannot be made."""

    async def start(self, config: gglib.ServerConfig) -> gglib.ProcessHandle:
        """Raise, for want of everything."""
        raise StartFailed(config.model_name, None)


HalfARunner()  # type: ignore[abstract]


@asynccontextmanager
async def open_runner(context: AdapterContext) -> AsyncIterator[ProcessRunner]:
    """Open a runner as an entry point does."""
    assert_type(context.engines["mock"], Engine)
    assert_type(
        context.handle_for(
            gglib.ServerConfig(model_id=1, model_name="a", model_path="a.gguf"), port=1, node="n"
        ),
        gglib.ProcessHandle,
    )
    yield MockRunner(name=context.name)


factory: AdapterFactory[ProcessRunner] = open_runner
wrong: AdapterFactory[ModelSource] = open_runner  # type: ignore[assignment]


async def mocks(gateway: MockGateway) -> None:
    """What tests are written with."""
    clock = FakeClock(auto_advance=True)
    runner = MockRunner(MockScript(load_s=2), clock=clock, sockets=True)
    runner.script("qwen", MockScript(reply=lambda body: str(body["model"])))
    assert_type(runner.called, list[str])
    assert_type(runner.starts("qwen"), list[gglib.ServerConfig])
    assert_type(runner.engine_server("qwen"), MockEngineServer)
    assert_type(runner.engine_server("qwen").requests, list[MockRequest])
    assert_type(gateway.add_model("qwen", concurrency_limit=2), gglib.Model)
    MockScript(load=2)  # type: ignore[call-arg]
    make_context("somewhere")  # type: ignore[arg-type]
