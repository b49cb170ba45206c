"""The fixtures that gglib brings along, used as downstream projects use them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import anyio
import httpx
import pytest

from gglib.errors import EngineDied, GglibError, StartFailed
from gglib.library import Library
from gglib.ports import Clock
from gglib.testing import (
    FakeClock,
    MockGateway,
    MockRunner,
    MockScript,
    RecordingSink,
    SystemClock,
    mock_gateway,
    mock_library,
)


def ask(
    gateway: MockGateway, model: str = "qwen", *, timeout_s: float = 10, **more: object
) -> httpx.Response:
    """Ask the gateway for a chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    url = f"{gateway.base_url}/chat/completions"
    return httpx.post(url, json=body, timeout=timeout_s, trust_env=False)


def test_gateway_answers_for_a_model_that_was_added(
    gglib_gateway: MockGateway, mock_runner: MockRunner
) -> None:
    """Over real sockets, by name and by alias; the model is listed."""
    gglib_gateway.add_model("qwen", aliases=["q"])
    assert gglib_gateway.runner is mock_runner
    for name in ("qwen", "q"):
        answer = ask(gglib_gateway, name).json()
        assert answer["choices"][0]["message"]["content"] == "You said: hi"
    listed = httpx.get(f"{gglib_gateway.base_url}/models", trust_env=False).json()
    assert [model["id"] for model in listed["data"]] == ["qwen"]
    assert mock_runner.called == ["start qwen"]


def test_gateway_without_models_knows_none(gglib_gateway: MockGateway) -> None:
    """Each test has a gateway of its own."""
    assert ask(gglib_gateway).status_code == 404


def test_server_that_crashes_is_started_again_for_the_next(
    gglib_gateway: MockGateway, mock_runner: MockRunner
) -> None:
    """A crash from the test's thread is noticed in the gateway's."""
    gglib_gateway.add_model("qwen")
    assert ask(gglib_gateway).status_code == 200
    mock_runner.crash("qwen")
    assert ask(gglib_gateway).status_code == 200
    assert mock_runner.called.count("start qwen") == 2


def test_stream_that_breaks_ends_with_an_error(
    gglib_gateway: MockGateway, mock_runner: MockRunner
) -> None:
    """What an engine's death in the middle looks like to a client."""
    gglib_gateway.add_model("qwen")
    mock_runner.script("qwen", MockScript(reply="one two three", dies_after_chunks=2))
    answer = ask(gglib_gateway, stream=True)
    assert '"error"' in answer.text
    assert "[DONE]" not in answer.text


def test_gateway_closes_at_once_whatever_it_is_doing(tmp_path: Path) -> None:
    """A test that left a request hanging does not hold up the next."""
    with MockRunner(MockScript(load_s=math.inf), clock=SystemClock(), sockets=True) as runner:
        with mock_gateway(tmp_path / "data", runner) as gateway:
            gateway.add_model("qwen")
            with pytest.raises(httpx.ReadTimeout):
                ask(gateway, timeout_s=0.3)
            began = time.monotonic()
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("runner", [MockRunner(clock=SystemClock()), MockRunner(sockets=True)])
def test_gateway_wants_sockets_and_the_machines_time(tmp_path: Path, runner: MockRunner) -> None:
    """Else every answer would fail, or be waited for in vain."""
    with pytest.raises(ValueError, match="sockets=True, clock=SystemClock"):
        with mock_gateway(tmp_path / "data", runner):
            pass


@pytest.mark.parametrize("kind", [KeyError, SystemExit, KeyboardInterrupt, pytest.skip.Exception])
def test_error_in_the_gateways_block_comes_as_itself(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    """A skip stays a skip, and Ctrl-C what it is."""
    mine = kind("mine")
    with MockRunner(clock=SystemClock(), sockets=True) as runner:
        with pytest.raises(kind) as caught:
            with mock_gateway(tmp_path / "data", runner):
                raise mine
    assert caught.value is mine


async def test_runner_in_use_is_refused(gglib_gateway: MockGateway, tmp_path: Path) -> None:
    """A library on the gateway's runner would stop the gateway's servers."""
    gglib_gateway.add_model("qwen")
    await anyio.to_thread.run_sync(ask, gglib_gateway)
    with pytest.raises(ValueError, match="give each one its own"):
        async with mock_library(tmp_path / "data", gglib_gateway.runner):
            pass


def test_gateway_takes_settings(tmp_path: Path) -> None:
    """Those of the real one, such as its keys."""
    with MockRunner(clock=SystemClock(), sockets=True) as runner:
        with mock_gateway(tmp_path / "data", runner, api_keys=["secret"]) as gateway:
            gateway.add_model("qwen")
            assert ask(gateway).status_code == 401


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_library_loads_for_minutes_in_no_time(
    gglib_lib: Library, mock_runner: MockRunner
) -> None:
    """Its clock leaps."""
    mock_runner.script("qwen", MockScript(load_s=120))
    model = await gglib_lib.models.add("qwen.gguf")
    async with gglib_lib.serve(model) as server:
        assert server.load_s >= 120
        assert gglib_lib.servers == (server,)
    assert mock_runner.called == ["start qwen", "stop qwen"]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_library_reports_a_scripted_failure(
    gglib_lib: Library, mock_runner: MockRunner
) -> None:
    """With status and last lines, through the real services."""
    script = MockScript(load_s=60, crash_at_s=5, exit_status=3, crash_lines=("no memory",))
    mock_runner.script("qwen", script)
    await gglib_lib.models.add("qwen.gguf")
    with pytest.raises(StartFailed, match="no memory") as caught:
        async with gglib_lib.lease("qwen"):
            pass
    assert caught.value.exit_status == 3
    assert isinstance(caught.value, GglibError)
    assert not isinstance(caught.value, EngineDied)


class TestOwnClock:
    """A project that overrides ``gglib_clock`` owns the time of runner and library."""

    @pytest.fixture
    def gglib_clock(self) -> Clock:
        """Stand still."""
        return FakeClock()

    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_time_moves_when_the_test_says_so(
        self, gglib_lib: Library, mock_runner: MockRunner, gglib_clock: FakeClock
    ) -> None:
        """The model is ready when its thirty seconds have passed, not before."""
        mock_runner.script("qwen", MockScript(load_s=30))
        await gglib_lib.models.add("qwen.gguf")
        ready: list[float] = []

        async def serve() -> None:
            async with gglib_lib.serve("qwen"):
                ready.append(gglib_clock.monotonic())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await gglib_clock.advance(29)
            assert ready == []
            await gglib_clock.advance(2)
        assert len(ready) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_mock_library_touches_nothing_but_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the user's configuration nor his database; events can be looked at."""
    monkeypatch.setenv("GGLIB_CONFIG", str(tmp_path / "no such file"))
    monkeypatch.setenv("GGLIB_HOME", str(tmp_path / "elsewhere"))
    runner = MockRunner(clock=FakeClock(auto_advance=True))
    sink = RecordingSink()
    async with mock_library(tmp_path / "data", runner, events=sink) as library:
        model = await library.models.add("qwen.gguf")
        async with library.serve(model):
            pass
    assert sink.names == ["model.added", "server.started", "server.ready", "server.stopped"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert list((tmp_path / "data").iterdir()) == []
