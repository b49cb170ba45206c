"""gglib without async: the same library, from plain functions and any thread."""

from __future__ import annotations

import inspect
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import gglib
import gglib.blocking
from gglib.blocking import BlockingLibrary
from gglib.bootstrap import SystemClock
from gglib.errors import ModelNotFound, StartFailed
from gglib.library import Library, open_library
from gglib.ports import Event, EventSink
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
    for name in asynchronous - {"declare", "refresh", "watch"}:
        assert f"self.{name} = " in inspect.getsource(gglib.blocking.BlockingModels)
    assert inspect.signature(gglib.blocking.open) == inspect.signature(open_library)


def test_library_closes_what_is_still_open(tmp_path: Path, runner: MockRunner) -> None:
    """A block of another thread, and one that nobody leaves: neither holds up the end."""
    inside, go_on = threading.Event(), threading.Event()
    left: list[str] = []

    def serve(lib: BlockingLibrary) -> None:
        with lib.serve("qwen"):
            inside.set()
            go_on.wait()
        left.append("left")

    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")
        thread = threading.Thread(target=serve, args=(lib,))
        thread.start()
        inside.wait()
        forgotten = lib.serve("qwen")
        forgotten.__enter__()
    assert runner.called == ["start qwen"] * 2 + ["stop qwen"] * 2
    go_on.set()
    thread.join()
    assert left == ["left"]


def test_closed_library_says_so(tmp_path: Path, runner: MockRunner) -> None:
    """By every use; and a block is good for one time."""
    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")
        block = lib.serve("qwen")
        with block:
            pass
        with pytest.raises(RuntimeError, match="entered before"), block:
            raise AssertionError
    for use in (lib.models.list, lambda: lib.servers, lambda: lib.serve("qwen").__enter__()):
        with pytest.raises(RuntimeError, match="the library is closed"):
            use()


def test_library_cannot_wait_for_itself(tmp_path: Path, runner: MockRunner) -> None:
    """An event sink runs in the library's own thread."""
    said: list[str] = []

    class Asking(EventSink):
        def emit(self, event: Event) -> None:
            try:
                lib.models.list()
            except RuntimeError as error:
                said.append(str(error))

    with gglib.blocking.open(
        tmp_path / "data", runner=runner, source=MockModelSource(), events=Asking()
    ) as lib:
        lib.models.add("qwen.gguf")
    assert "own thread" in said[0]


def test_stop_iteration_comes_as_itself(tmp_path: Path, runner: MockRunner) -> None:
    """What no coroutine can raise."""
    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")
        with pytest.raises(StopIteration):
            with lib.serve("qwen"):
                next(iter([]))
    assert runner.called == ["start qwen", "stop qwen"]


def test_second_interrupt_does_not_wait_for_a_slow_stop(tmp_path: Path, runner: MockRunner) -> None:
    """The first one waits until the server is gone; the library's end sees to the rest."""
    runner.script("qwen", MockScript(stop_delay_s=1.0))
    main = threading.main_thread().ident or 0

    def interrupt_twice() -> None:
        for _ in range(2):
            while runner.called[-1] != "stop qwen":
                time.sleep(0.001)
            time.sleep(0.1)
            signal.pthread_kill(main, signal.SIGINT)

    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")
        began = time.monotonic()
        interrupter = threading.Thread(target=interrupt_twice)
        with pytest.raises(KeyboardInterrupt):
            with lib.serve("qwen"):
                interrupter.start()
        assert time.monotonic() - began < 0.9
        interrupter.join()
    assert runner.called == ["start qwen", "stop qwen"]


@pytest.mark.soak
def test_interrupts_at_any_moment_leave_nothing(tmp_path: Path, runner: MockRunner) -> None:
    """Three hundred of them."""
    chance = random.Random(1)
    main = threading.main_thread().ident or 0
    with opened(tmp_path, runner) as lib:
        lib.models.add("qwen.gguf")
        for _ in range(300):
            delay_s = chance.uniform(0, 0.02)
            interrupter = threading.Timer(delay_s, lambda: signal.pthread_kill(main, signal.SIGINT))
            interrupter.start()
            with suppress(KeyboardInterrupt):
                with lib.serve("qwen"):
                    pass
            with suppress(KeyboardInterrupt):
                interrupter.join()
                time.sleep(0.03)
    assert runner.called.count("start qwen") == runner.called.count("stop qwen")


def test_library_that_nobody_leaves_is_left_at_the_end_of_the_program(tmp_path: Path) -> None:
    """As a notebook does it; the interpreter ends, and the server with it."""
    program = (
        "import sys, gglib.blocking\n"
        "from gglib.bootstrap import SystemClock\n"
        "from gglib.testing import MockModelSource, MockEngine, MockRunner\n"
        "runner = MockRunner(clock=SystemClock())\n"
        "import atexit; atexit.register(lambda: print(runner.called))\n"
        "manager = gglib.blocking.open(sys.argv[1], runner=runner, engine=MockEngine(),\n"
        "                              source=MockModelSource())\n"
        "lib = manager.__enter__()\n"
        "lib.models.add('qwen.gguf')\n"
        "lib.serve('qwen').__enter__()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['start qwen', 'stop qwen']"
