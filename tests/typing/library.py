"""What a type checker knows of the library: checked, and never run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import assert_type

import gglib
import gglib.blocking
from gglib.blocking import BlockingLibrary
from gglib.library import Library
from gglib.ports import Clock, EventSink
from gglib.services.catalog_steps import ScanStep
from gglib.services.routing.router import Lease
from gglib.services.serving import RunningServer
from gglib.services.verifying import Verification
from gglib.testing import (
    MemoryModelCatalog,
    MemoryServerRegistry,
    MockEngine,
    MockModelSource,
    MockRunner,
    MockServerClient,
    RecordingSink,
)
from gglib_adapters.runners.local import open_local_runner
from gglib_adapters.runners.mock import open_mock_runner


async def library(clock: Clock, sink: EventSink, path: Path) -> None:
    """Every argument is typed, an instance or a factory; every result too."""
    opened: AbstractAsyncContextManager[Library] = gglib.open()
    assert_type(await opened.__aenter__(), Library)
    async with gglib.open(
        "data",
        config=path,
        events=sink,
        clock=clock,
        runner=MockRunner(),
        engine=MockEngine(),
        catalog=MemoryModelCatalog(),
        registry=MemoryServerRegistry(),
        source=MockModelSource(),
        server_client=MockServerClient(MockRunner()),
        runners={"near": open_local_runner, "paper": MockRunner()},
    ) as lib:
        model = await lib.models.add(path, name="qwen", aliases=["q"])
        assert_type(model, gglib.Model)
        assert_type(await lib.models.list(), list[gglib.Model])
        assert_type(await lib.models.scan([path]), Sequence[ScanStep])
        assert_type(await lib.models.import_models("ollama"), Sequence[ScanStep])
        assert_type(await lib.models.configure("qwen", {"pinned": True}), gglib.Model)
        assert_type(await lib.models.verify("qwen"), Verification)
        async with lib.serve(model, engine="mock", context_size=512) as server:
            assert_type(server, RunningServer)
            assert_type(server.base_url, str)
            assert_type(server.slots_total, int | None)
            assert_type(server.api_key, str | None)
        async with lib.lease("qwen") as lease:
            assert_type(lease, Lease)
            assert_type(lease.server, RunningServer)
        assert_type(lib.servers, tuple[RunningServer, ...])
    async with gglib.open(runner=open_mock_runner, events=RecordingSink()):
        pass
    gglib.open(runner=MemoryModelCatalog())  # type: ignore[arg-type]
    gglib.open(path, runer=MockRunner())  # type: ignore[call-arg]
    gglib.open(engine="llama-server")  # type: ignore[arg-type]


def blocking(path: Path) -> None:
    """The same arguments, and results without await."""
    assert_type(gglib.blocking.open(), AbstractContextManager[BlockingLibrary, bool | None])
    with gglib.blocking.open(path, runner=MockRunner()) as lib:
        model = lib.models.add("qwen.gguf", name="qwen")
        assert_type(model, gglib.Model)
        assert_type(lib.models.list(), list[gglib.Model])
        assert_type(lib.models.remove("qwen"), gglib.Model)
        assert_type(lib.models.scan([path], prune=True), Sequence[ScanStep])
        assert_type(lib.models.import_models("ollama", path), Sequence[ScanStep])
        with lib.serve(model, gpu_layers=0) as server:
            assert_type(server, RunningServer)
        with lib.lease(model) as lease:
            assert_type(lease, Lease)
        lib.models.add()  # type: ignore[call-arg]
    gglib.blocking.open(path, runer=MockRunner())  # type: ignore[call-arg]
