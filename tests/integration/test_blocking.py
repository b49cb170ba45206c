"""gglib without async: the same library, from plain functions and any thread."""

from __future__ import annotations

import inspect
import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import gglib
import gglib.blocking
from gglib.blocking import BlockingLibrary
from gglib.bootstrap import SystemClock
from gglib.errors import ModelNotFound, StartFailed
from gglib.library import Library, open_library
from gglib.services.models import ModelService
from gglib.testing import (
    MemoryModelCatalog,
    MemoryServerRegistry,
    MockEngine,
    MockModelSource,
    MockRunner,
    MockScript,
)


@pytest.fixture
def runner() -> Iterator[MockRunner]:
    """Give a mock runner on the machine's time."""
    with MockRunner(clock=SystemClock()) as runner:
        yield runner


@contextmanager
def opened(tmp_path: Path, runner: MockRunner) -> Iterator[BlockingLibrary]:
    """Open the blocking library over mocks."""
    with gglib.blocking.open(
        tmp_path / "data",
        runner=runner,
        engine=MockEngine(),
        catalog=MemoryModelCatalog(),
        registry=MemoryServerRegistry(),
        source=MockModelSource(),
    ) as lib:
        yield lib


def test_model_is_added_served_and_stopped(tmp_path: Path, runner: MockRunner) -> None:
    """What the async library does, in its order."""
    with opened(tmp_path, runner) as lib:
        model = lib.models.add("qwen.gguf")
        assert [model.name for model in lib.models.list()] == ["qwen"]
        with lib.serve(model, context_size=512) as server:
            assert lib.servers == (server,)
            assert runner.starts()[0].context_size == 512
        assert lib.servers == ()
        with lib.lease("qwen") as lease:
            assert lease.server.base_url.startswith("http://")
        assert lib.models.resolve("qwen").model == model
        assert lib.models.remove("qwen") == model
    assert runner.called == ["start qwen", "stop qwen"] * 2


def test_errors_come_as_they_are(tmp_path: Path, runner: MockRunner) -> None:
    """From a call, from entering, and out of a block."""
    runner.script("qwen", MockScript(start_error=StartFailed("qwen", 1)), MockScript())
    with opened(tmp_path, runner) as lib:
        with pytest.raises(ModelNotFound):
            lib.models.resolve("nobody")
        lib.models.add("qwen.gguf")
        with pytest.raises(StartFailed):
            with lib.serve("qwen"):
                raise AssertionError("the block is not entered")
        mine = KeyError("mine")
        with pytest.raises(KeyError) as caught:
            with lib.serve("qwen"):
                raise mine
        assert caught.value is mine
    assert runner.called == ["start qwen", "start qwen", "stop qwen"]


def test_error_in_the_block_leaves_the_library_as_itself(
    tmp_path: Path, runner: MockRunner
) -> None:
    """Nothing wraps it, and its servers are stopped."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it leaves three blocks
        with opened(tmp_path, runner) as lib:
            lib.models.add("qwen.gguf")
            with lib.lease("qwen"):
                raise ZeroDivisionError
    assert runner.called == ["start qwen", "stop qwen"]


def test_threads_share_one_library(tmp_path: Path, runner: MockRunner) -> None:
    """Ten threads lease at once, and share one start."""
    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")

        def lease(_: int) -> str:
            with lib.lease("qwen") as lease:
                return lease.server.server_id

        with ThreadPoolExecutor(10) as threads:
            assert len(set(threads.map(lease, range(10)))) == 1
    assert runner.called == ["start qwen", "stop qwen"]


def test_interrupted_start_leaves_nothing(tmp_path: Path, runner: MockRunner) -> None:
    """Ctrl-C while a model loads for ever: the server is ended, and the library goes on."""
    runner.script("qwen", MockScript(load_s=math.inf), MockScript())
    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")
        interrupter = threading.Thread(target=interrupt_when_started, args=(runner,))
        interrupter.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            with lib.serve("qwen"):
                raise AssertionError("the block is not entered")
        interrupter.join()
        assert time.monotonic() - began < 5
        assert runner.called == ["start qwen", "stop qwen"]
        with lib.serve("qwen") as server:
            assert lib.servers == (server,)


def test_interrupt_in_the_block_stops_its_server(tmp_path: Path, runner: MockRunner) -> None:
    """KeyboardInterrupt is the caller's; the loop behind lives until everything is stopped."""
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it leaves three blocks
        with opened(tmp_path, runner) as lib:
            lib.models.add("qwen.gguf")
            with lib.serve("qwen"):
                raise KeyboardInterrupt
    assert runner.called == ["start qwen", "stop qwen"]


def interrupt_when_started(runner: MockRunner) -> None:
    """Send this process SIGINT once a server is starting."""
    while not any(call.method == "health" for call in runner.calls):
        time.sleep(0.001)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_blocking_face_has_all_that_the_async_one_has() -> None:
    """No method is forgotten, and the arguments are the same."""
    own = {name for name in vars(BlockingLibrary) if not name.startswith("_")}
    assert {name for name in vars(Library) if not name.startswith("_")} <= own
    asynchronous = {
        name
        for name, function in inspect.getmembers(ModelService, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    # Theirs are the gateway's needs: a library looks when it is asked.
    for name in asynchronous - {"refresh", "watch"}:
        assert f"self.{name} = " in inspect.getsource(gglib.blocking.BlockingModels)
    assert inspect.signature(gglib.blocking.open) == inspect.signature(open_library)
