"""The runner of other projects' tests: what its scripts, controls and records promise.

That it keeps the promises of the port is the conformance suite's to say.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
import httpx
import psutil
import pytest
from anyio.lowlevel import checkpoint

from gglib.bootstrap import SystemClock
from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.model import Model
from gglib.domain.ownership import Owner, OwnerKind
from gglib.errors import (
    ConfigurationError,
    InvalidValue,
    ModelFileMissing,
    NodeUnreachable,
    NotConfigured,
    NotRunning,
    PortInUse,
    StartFailed,
    StartTimeout,
    StopFailed,
)
from gglib.ports.context import EngineSet
from gglib.services.serving import ServingService
from gglib.testing import (
    FakeClock,
    MemoryServerRegistry,
    MockRunner,
    MockScript,
    MockServerClient,
    RecordingSink,
    make_context,
)
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.runners.mock import MockWorld, open_mock_runner

#: No proxy between, and no certificates to load.
PLAIN: Any = {"trust_env": False, "verify": False}


def config(name: str = "qwen", **changes: Any) -> ServerConfig:
    """Return a configuration of a model."""
    return ServerConfig(**{"model_id": 1, "model_name": name, "model_path": "m.gguf"} | changes)


class House:
    """A runner, and the clock it lives by."""

    def __init__(self, *scripts: MockScript, **options: Any) -> None:
        self.clock = FakeClock()
        self.runner = MockRunner(*scripts, clock=self.clock, **options)

    async def start(self, name: str = "qwen", **changes: Any) -> ProcessHandle:
        """Start a server."""
        return await self.runner.start(config(name, **changes))

    async def lines(self, handle: ProcessHandle, tail: int = 20) -> list[str]:
        """Return the last lines of its output."""
        return [line async for line in self.runner.logs(handle, tail=tail)]

    @asynccontextmanager
    async def meanwhile(self, call: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[Any]]:
        """Let ``call`` run beside the block, and give the list that its result goes to."""
        results: list[Any] = []

        async def collect() -> None:
            results.append(await call())

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect)
                await self.clock.advance(0)
                yield results
                await self.clock.advance(0)


async def test_first_server_is_the_same_in_every_run() -> None:
    """Identity, pid, port and times are counted, not drawn; no pid is that of a process."""
    handles = [await House().start() for _ in range(2)]
    assert handles[0] == handles[1]
    first = handles[0]
    assert (first.server_id, first.port) == ("00000000000000000000000001", 20000)
    assert (first.runner, first.node, first.started_at) == ("MockRunner", "mock", 1_700_000_000.0)
    assert first.process_started_at == first.started_at
    assert first.base_url == "http://127.0.0.1:20000"
    assert first.pid is not None and not psutil.pid_exists(first.pid)


async def test_ports_are_counted_past_those_that_are_taken() -> None:
    """From 20000 on, or from where the configuration says."""
    house = House()
    await house.start(port=20001)
    ports = [(await house.start(base_port=base)).port for base in (0, 0, 20000, 65535, 65535)]
    assert ports == [20000, 20002, 20003, 65535, 20004]


async def test_port_of_a_server_that_is_being_started_is_in_use() -> None:
    """And free again when that start was called off."""
    house = House(MockScript(start_delay_s=5), MockScript())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(house.start, port=9000))
        await house.clock.advance(1)
        with pytest.raises(PortInUse) as caught:
            await house.start(port=9000)
        tasks.cancel_scope.cancel()
    assert (caught.value.port, caught.value.holder) == (9000, None)
    handle = await house.start(port=9000)
    with pytest.raises(PortInUse, match=f"qwen.*{handle.pid}"):
        await house.start(port=9000)


async def test_start_takes_its_delay() -> None:
    """Before there is a process."""
    house = House(MockScript(start_delay_s=2))
    async with house.meanwhile(house.start) as started:
        await house.clock.advance(1.9)
        assert (started, await house.runner.list_running()) == ([], [])
        await house.clock.advance(0.1)
        assert [handle.started_at for handle in started] == [1_700_000_002.0]


async def test_successive_starts_follow_their_scripts() -> None:
    """Those of the model, else those of all; the last one repeats."""
    house = House(MockScript(lines=("first",)), MockScript(lines=("later",)))
    house.runner.script("bad", MockScript(start_error=StartFailed("bad", 7)), MockScript())
    with pytest.raises(StartFailed) as caught:
        await house.start("bad")
    assert caught.value.exit_status == 7
    assert [await house.lines(await house.start("bad")) for _ in range(2)] == [[], []]
    for name in ("one", "two"):
        seen = [await house.lines(await house.start(name)) for _ in range(3)]
        assert seen == [["first"], ["later"], ["later"]]
    house.runner.script("bad")
    assert await house.lines(await house.start("bad")) == ["first"]


async def test_start_error_is_raised_afresh_each_time() -> None:
    """One exception raised over and over would gather its tracebacks."""
    error = StartFailed("qwen", 1)
    house = House(MockScript(start_error=error))
    raised = []
    for _ in range(2):
        with pytest.raises(StartFailed) as caught:
            await house.start()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert error.__traceback__ is None


async def test_health_follows_the_script() -> None:
    """Loading with its progress, healthy, away for a while, and remembered."""
    house = House(MockScript(load_s=4, unhealthy=((6, 8),)), sockets=False)
    handle = await house.start(context_size=2048, parallel=2)
    seen = []
    for seconds in (0, 1, 3, 2, 1.5, 0.5):
        await house.clock.advance(seconds)
        seen.append(await house.runner.health(handle))
    assert [health.healthy for health in seen] == [False, False, True, False, False, True]
    assert [health.load_progress for health in seen[:3]] == [0.0, 0.25, 1.0]
    assert seen[0].message == "Loading model"
    assert (seen[2].context_size, seen[2].slots_total) == (2048, 2)
    assert [health.last_check for health in seen[2:5]] == [1_700_000_004.0] * 3
    assert seen[5].last_check == 1_700_000_008.0


@pytest.mark.parametrize("began", [0.1 + 0.2, 1e6 / 3])
async def test_server_is_ready_exactly_after_its_load(began: float) -> None:
    """Whatever the sums of seconds round to."""
    house = House(MockScript(load_s=0.7))
    await house.clock.advance(began)
    handle = await house.start()
    await house.clock.advance(0.7)
    assert (await house.runner.health(handle)).healthy


async def test_script_says_what_the_server_reports() -> None:
    """Rather than its configuration."""
    house = House(MockScript(context_size=512, slots_total=3, health_delay_s=2))
    handle = await house.start(context_size=2048)
    async with house.meanwhile(partial(house.runner.health, handle)) as answers:
        await house.clock.advance(2)
    (health,) = answers
    assert (health.context_size, health.slots_total, health.latency_s) == (512, 3, 2)


async def test_server_that_ends_during_its_health_check_is_not_running() -> None:
    """A state that was true at the beginning of the check is not told at its end."""
    house = House(MockScript(health_delay_s=2, crash_at_s=1))
    handle = await house.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.clock.advance, 2)
        with pytest.raises(NotRunning):
            await house.runner.health(handle)


async def test_server_crashes_at_its_time() -> None:
    """Whoever waits is told the status then, and its last words are kept."""
    script = MockScript(crash_at_s=3, exit_status=-11, lines=("a",), crash_lines=("oh", "no"))
    house = House(script)
    handle = await house.start()
    async with house.meanwhile(partial(house.runner.wait, handle)) as statuses:
        await house.clock.advance(2.9)
        assert (statuses, await house.lines(handle)) == ([], ["a"])
        await house.clock.advance(0.1)
        assert statuses == [-11]
    assert not await house.runner.is_running(handle)
    assert await house.lines(handle, tail=2) == ["oh", "no"]
    assert await house.runner.past_servers("qwen") == [handle]


@pytest.mark.parametrize(
    ("script", "seconds", "status"),
    [
        (MockScript(), 0, -15),
        (MockScript(stop_delay_s=4), 4, -15),
        (MockScript(stop_delay_s=6), 5, -9),
        (MockScript(ignores_stop=True), 5, -9),
        (MockScript(stop_delay_s=4, crash_at_s=1), 1, 1),
    ],
)
async def test_stop_takes_as_long_as_the_server(
    script: MockScript, seconds: float, status: int
) -> None:
    """At most the grace; it ends earlier if it crashes meanwhile."""
    house = House(script, stop_grace_s=5)
    handle = await house.start()
    async with house.meanwhile(partial(house.runner.stop, handle)) as stopped:
        if seconds:
            await house.clock.advance(seconds - 0.1)
            assert (stopped, await house.runner.is_running(handle)) == ([], True)
            await house.clock.advance(0.1)
        assert stopped == [None]
    assert await house.runner.wait(handle) == status


async def test_server_that_survives_is_told_of() -> None:
    """After the grace, each time; it runs on, until it crashes."""
    house = House(MockScript(survives_kill=True), stop_grace_s=5)
    handle = await house.start()
    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.clock.advance, 5)
            with pytest.raises(StopFailed) as caught:
                await house.runner.stop(handle)
        assert caught.value.pids == (handle.pid,)
    assert await house.runner.is_running(handle)
    house.runner.crash(handle)
    assert await house.runner.list_running() == []


async def test_cancelled_stop_goes_on() -> None:
    """The server ends at the time that was fixed when it was asked."""
    house = House(MockScript(stop_delay_s=3))
    handle = await house.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.runner.stop, handle)
        await checkpoint()
        tasks.cancel_scope.cancel()
    assert await house.runner.is_running(handle)
    await house.clock.advance(3)
    assert not await house.runner.is_running(handle)
    with pytest.raises(NotRunning):
        await house.runner.stop(handle)


async def test_followed_output_has_every_line_once_until_the_end() -> None:
    """What is said meanwhile, and the last words."""
    house = House(MockScript(lines=("a", "b"), crash_at_s=5, crash_lines=("z",)))
    handle = await house.start()

    async def follow() -> list[str]:
        return [line async for line in house.runner.logs(handle, tail=1, follow=True)]

    async with house.meanwhile(follow) as seen:
        house.runner.say("qwen", "c")
        await house.clock.advance(1)
        house.runner.say(handle, "d")
        await house.clock.advance(4)
        assert seen == [["b", "c", "d", "z"]]
    assert [line async for line in house.runner.logs(handle, tail=0, follow=True)] == []


async def test_output_of_a_stranger_is_empty() -> None:
    """It is no error."""
    house = House()
    handle = attrs.evolve(await house.start(), server_id="stranger")
    assert await house.lines(handle) == []
    assert await house.runner.wait(handle) is None


async def test_crash_by_name_ends_all_servers_of_the_model() -> None:
    """With the status and the lines that were said, and no other model's."""
    house = House(MockScript(exit_status=4, crash_lines=("by itself",)))
    first, second, other = [await house.start(name) for name in ("a", "a", "b")]
    house.runner.crash("a", exit_status=-9, lines=["Killed"])
    assert [await house.runner.wait(handle) for handle in (first, second)] == [-9, -9]
    assert await house.lines(first) == ["Killed"]
    assert await house.runner.list_running() == [other]
    house.runner.crash(other)
    assert (await house.runner.wait(other), await house.lines(other)) == (4, ["by itself"])


async def test_server_that_is_gone_has_no_health_and_is_not_adopted() -> None:
    """Nor has one that merely resembles it."""
    house = House()
    handle = await house.start()
    stranger = attrs.evolve(handle, pid=1)
    house.runner.crash(handle)
    for gone in (handle, stranger):
        for ask in (house.runner.health, house.runner.adopt):
            with pytest.raises(NotRunning, match="qwen"):
                await ask(gone)


async def test_health_that_was_set_holds_until_it_is_taken_back() -> None:
    """Over whatever the script says."""
    house = House(MockScript(load_s=math.inf))
    handle = await house.start()
    busy = ServerHealth.unhealthy("busy")
    house.runner.set_health("qwen", busy)
    assert await house.runner.health(handle) == busy
    fine = ServerHealth.ok(last_check=5.0, slots_busy=1)
    house.runner.set_health(handle, fine)
    assert await house.runner.health(handle) == fine
    house.runner.set_health("qwen", None)
    assert (await house.runner.health(handle)).message == "Loading model"


@pytest.mark.parametrize("which", ["nobody", "qwen"])
async def test_what_does_not_run_cannot_be_disturbed(which: str) -> None:
    """A test that means another server is told so."""
    house = House()
    handle = await house.start()
    await house.runner.stop(handle)
    for disturb in (
        lambda: house.runner.crash(which),
        lambda: house.runner.say(which, "line"),
        lambda: house.runner.set_health(which, None),
        lambda: house.runner.crash(handle),
    ):
        with pytest.raises(NotRunning):
            disturb()


async def test_crash_from_another_thread_wakes_all_who_wait() -> None:
    """The gateway fixture's event loop is not its test's."""
    house = House()
    handle = await house.start()

    async def follow() -> list[str]:
        return [line async for line in house.runner.logs(handle, follow=True)]

    async with house.meanwhile(follow) as lines:
        async with house.meanwhile(partial(house.runner.wait, handle)) as statuses:
            await anyio.to_thread.run_sync(house.runner.say, "qwen", "one")
            await anyio.to_thread.run_sync(house.runner.crash, "qwen", 6, ["two"])
        assert statuses == [6]
    assert lines == [["one", "two"]]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_test_without_an_event_loop_controls_a_runner_in_another_thread(loop: str) -> None:
    """On the machine's clock, as with the gateway fixture."""
    runner = MockRunner(clock=SystemClock())
    started, ended = threading.Event(), threading.Event()
    statuses: list[int | None] = []

    async def serve() -> None:
        handle = await runner.start(config())
        started.set()
        statuses.append(await runner.wait(handle))
        ended.set()

    thread = threading.Thread(target=anyio.run, args=(serve,), kwargs={"backend": loop})
    thread.start()
    assert started.wait(10)
    runner.crash("qwen", exit_status=5)
    assert ended.wait(10)
    thread.join()
    assert statuses == [5]
    assert runner.called == ["start qwen"]


async def test_every_call_is_recorded() -> None:
    """With its time; the short list has starts and stops."""
    house = House(MockScript(), name="paper")
    handle = await house.start("a", environment={"GGLIB_SERVER_ID": "id"})
    await house.clock.advance(2)
    await house.runner.health(handle)
    await house.runner.has_file(Path("x"))
    await house.runner.adopt(handle)
    await house.runner.stop(handle)
    calls = house.runner.calls
    assert [call.method for call in calls] == ["start", "health", "has_file", "adopt", "stop"]
    assert [call.at for call in calls] == [0.0, 2.0, 2.0, 2.0, 2.0]
    assert [call.server_id for call in calls] == ["id", "id", None, "id", "id"]
    assert house.runner.called == ["start a", "stop a"]
    assert house.runner.name == handle.runner == "paper"


async def test_starts_are_what_was_asked_for() -> None:
    """Those that failed too."""
    house = House()
    house.runner.script("bad", MockScript(start_error=StartFailed("bad", 1)))
    with pytest.raises(StartFailed):
        await house.start("bad", context_size=1)
    await house.start("good", context_size=2)
    assert [start.context_size for start in house.runner.starts()] == [1, 2]
    assert [start.context_size for start in house.runner.starts("good")] == [2]


async def test_machine_that_is_away_tells_nothing_and_its_servers_run_on() -> None:
    """Every question raises, or says that it is out of reach; an end is told on its return."""
    house = House()
    handle = await house.start("qwen")
    away = house.runner.away = NodeUnreachable("box", "connect", "no answer", "is it on?")
    for ask in (
        lambda: house.runner.start(config()),
        lambda: house.runner.stop(handle),
        lambda: house.runner.is_running(handle),
        lambda: house.runner.adopt(handle),
        house.runner.list_running,
        house.runner.devices,
        lambda: house.runner.has_file(Path("/m/there.gguf")),
    ):
        with pytest.raises(NodeUnreachable):
            await ask()
    assert await house.runner.way_to(handle) == away
    assert (await house.runner.health(handle)).is_out_of_reach
    assert house.runner.running == [handle]
    house.runner.crash(handle, exit_status=3)
    house.runner.away = None
    assert await house.runner.wait(handle) == 3
    assert await house.runner.way_to(handle) is None


async def test_missing_file_is_missing() -> None:
    """Every other one is there."""
    house = House()
    house.runner.missing_files.add(Path("/m/gone.gguf"))
    assert not await house.runner.has_file(Path("/m/gone.gguf"))
    assert await house.runner.has_file(Path("/m/there.gguf"))


async def test_runners_of_one_world_share_their_servers() -> None:
    """As two processes of gglib over one data directory do."""
    world = MockWorld()
    one, other, stranger = House(world=world), House(world=world), House()
    handle = await one.start()
    assert await other.runner.list_running() == [handle]
    assert await stranger.runner.list_running() == []
    await other.runner.stop(handle)
    assert await one.runner.past_servers("qwen") == [handle]


async def test_closed_runner_has_no_servers() -> None:
    """Also none that survives a kill."""
    house = House(MockScript(survives_kill=True), MockScript())
    with house.runner as runner:
        handles = [await house.start() for _ in range(2)]
    assert await runner.list_running() == []
    assert [await runner.wait(handle) for handle in handles] == [-9, -9]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_delay_s", -1),
        ("start_error", ValueError("no error of ours")),
        ("load_s", -math.inf),
        ("crash_at_s", "soon"),
        ("exit_status", 256),
        ("unhealthy", ((2, 1),)),
        ("unhealthy", (1, 2)),
        ("unhealthy", ((1, True),)),
        ("lines", None),
        ("crash_lines", "one"),
        ("ignores_stop", "yes"),
        ("slots_total", 0),
        ("reply", 3),
        ("dies_after_chunks", -1),
    ],
)
def test_script_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    """The error names the field and the value."""
    with pytest.raises(InvalidValue) as caught:
        MockScript(**{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)


# With sockets


@pytest.fixture
def socketed() -> Iterator[House]:
    """A house whose servers listen."""
    house = House(sockets=True)
    with house.runner:
        yield house


def get(handle: ProcessHandle, path: str = "/health") -> int:
    """Return the status of the server's answer."""
    return httpx.get(f"{handle.base_url}{path}", **PLAIN, timeout=5).status_code


async def test_socket_follows_the_script_and_the_clock(socketed: House) -> None:
    """Loading, ready, away, gone; what it was asked can be read at any time."""
    socketed.runner.script("qwen", MockScript(load_s=1, unhealthy=((2, 3),), crash_at_s=4))
    handle = await socketed.start()
    seen = []
    for _ in range(4):
        seen.append((get(handle), get(handle, "/v1/models")))
        await socketed.clock.advance(1)
    assert seen == [(503, 503), (200, 200), (503, 200), (200, 200)]
    with pytest.raises(httpx.TransportError):
        get(handle)
    assert not await socketed.runner.is_running(handle)
    with pytest.raises(httpx.ConnectError):
        get(handle)
    engine = socketed.runner.engine_server(handle)
    assert engine is socketed.runner.engine_server("qwen")
    assert len(engine.requests) == 8
    assert engine.base_url == handle.base_url


async def test_health_that_was_set_holds_on_the_socket_too(socketed: House) -> None:
    """Ready while the script loads, and the other way round."""
    socketed.runner.script("qwen", MockScript(load_s=5))
    handle = await socketed.start()
    socketed.runner.set_health("qwen", ServerHealth.ok(last_check=1.0))
    assert get(handle) == 200
    socketed.runner.set_health("qwen", ServerHealth.unhealthy("busy"))
    assert get(handle) == 503


async def test_socket_answers_as_its_script_says(socketed: House) -> None:
    """Its reply, and what it tells of itself."""
    socketed.runner.script("qwen", MockScript(reply="Hello", context_size=512, slots_total=2))
    handle = await socketed.start()
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    url = f"{handle.base_url}/v1/chat/completions"
    answer = httpx.post(url, json=body, **PLAIN).json()
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("qwen", "Hello")
    properties = httpx.get(f"{handle.base_url}/props", **PLAIN).json()
    assert properties["default_generation_settings"]["n_ctx"] == 512
    assert properties["total_slots"] == 2


async def test_socket_is_closed_by_crash_and_stop(socketed: House) -> None:
    """When the call returns."""
    crashed, stopped = await socketed.start("a"), await socketed.start("b")
    socketed.runner.crash(crashed)
    await socketed.runner.stop(stopped)
    for handle in (crashed, stopped):
        with pytest.raises(httpx.ConnectError):
            get(handle)


async def test_port_that_a_stranger_has_is_in_use(socketed: House) -> None:
    """Asked for, it is refused; searching passes over it."""
    with House(sockets=True).runner as stranger:
        port = (await stranger.start(config())).port
        with pytest.raises(PortInUse) as caught:
            await socketed.start(port=port)
        assert caught.value.port == port
        assert await socketed.runner.list_running() == []
        assert (await socketed.start(base_port=port)).port > port


async def test_runner_without_sockets_has_no_engine_server() -> None:
    """It says how to get one; a model that never ran has none either."""
    house = House()
    await house.start()
    assert not house.runner.sockets
    with pytest.raises(NotConfigured, match="sockets=True"):
        house.runner.engine_server("qwen")
    with pytest.raises(NotRunning):
        house.runner.engine_server("nobody")


# Opened by configuration


async def test_configured_runner_does_as_its_section_says(tmp_path: Path) -> None:
    """By the name it is configured under, on the context's clock."""
    clock = FakeClock()
    section = {"load_s": 2, "reply": "Hello", "stop_grace_s": 1, "sockets": True}
    context = make_context(tmp_path, name="paper", settings=section, clock=clock)
    async with open_mock_runner(context) as runner:
        with runner:
            handle = await runner.start(config())
            assert (handle.runner, runner.sockets, get(handle)) == ("paper", True, 503)
            await clock.advance(2)
            assert (await runner.health(handle)).healthy
            assert runner.engine_server("qwen").reply == "Hello"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"socket": True}, "unknown key 'socket'; did you mean 'sockets'"),
        ({"zzz": 1}, "known keys: sockets, stop_grace_s, load_s, reply"),
        ({"load_s": -1}, "load_s is -1"),
        ({"sockets": "yes"}, "sockets is 'yes'"),
    ],
)
async def test_wrong_section_is_refused(
    tmp_path: Path, section: dict[str, Any], message: str
) -> None:
    """With what would be right, and where it stands."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        async with open_mock_runner(make_context(tmp_path, name="paper", settings=section)):
            pass
    assert caught.value.source == "[runners.paper]"


async def test_servers_outlive_their_runner_and_are_forgotten_with_the_last(tmp_path: Path) -> None:
    """The next opening finds them; once none runs, their output goes too."""
    opened = partial(open_mock_runner, make_context(tmp_path, settings={"sockets": True}))
    async with opened() as first:
        handle = await first.start(config())
    async with opened() as second, opened() as third:
        assert await second.list_running() == [handle]
        assert get(handle) == 200
        await third.stop(handle)
        assert await second.past_servers("qwen") == [handle]
    async with opened() as fourth:
        assert await fourth.past_servers("qwen") == []


# Under the serving service


class Serving:
    """The service that starts servers, over a mock runner whose time leaps."""

    def __init__(self, *scripts: MockScript, timeout_s: float = 60.0) -> None:
        self.clock = FakeClock(auto_advance=True)
        self.runner = MockRunner(*scripts, clock=self.clock)
        self.registry = MemoryServerRegistry()
        self.events = RecordingSink()
        self.service = ServingService(
            {"mock": self.runner},
            "mock",
            self.registry,
            EngineSet({"stub": StubEngine()}),
            MockServerClient(self.runner),
            clock=self.clock,
            events=self.events,
            owner=Owner(kind=OwnerKind.LIBRARY, pid=1, process_started_at=0.0, node="here"),
            start_timeout_s=timeout_s,
            default_engine="stub",
        )
        self.model = Model(id=1, name="qwen", paths=(Path("/m/qwen.gguf"),), size_bytes=1)

    async def nothing_left(self) -> bool:
        """Return whether there is neither a server nor a row."""
        return not await self.runner.list_running() and not await self.registry.list()


async def test_service_waits_for_a_load_that_takes_no_time() -> None:
    """Seconds on the clock, and a moment on the wall."""
    house = Serving(MockScript(load_s=7))
    with anyio.fail_after(10):
        server = await house.service.start(house.model)
        assert 7 <= server.load_s < 7.2
        await house.service.stop(server)
    assert await house.nothing_left()
    assert house.runner.called == ["start qwen", "stop qwen"]


async def test_crash_while_starting_fails_with_the_last_lines() -> None:
    """At once, not at the end of the timeout."""
    house = Serving(MockScript(load_s=50, crash_at_s=2, exit_status=3, crash_lines=("no memory",)))
    with anyio.fail_after(10), pytest.raises(StartFailed) as caught:
        await house.service.start(house.model)
    assert (caught.value.exit_status, caught.value.log_tail) == (3, ("no memory",))
    assert house.clock.monotonic() == pytest.approx(2.0)
    assert await house.nothing_left()


async def test_load_without_end_times_out_and_is_stopped() -> None:
    """In the clock's seconds."""
    house = Serving(MockScript(load_s=math.inf, lines=("loading",)), timeout_s=6)
    with anyio.fail_after(10), pytest.raises(StartTimeout) as caught:
        await house.service.start(house.model)
    assert (caught.value.timeout_s, caught.value.log_tail) == (6, ("loading",))
    assert house.clock.monotonic() == pytest.approx(6.0)
    assert await house.nothing_left()


async def test_model_whose_file_is_missing_is_not_started() -> None:
    """The runner is asked where the server would run."""
    house = Serving()
    house.runner.missing_files.add(Path("/m/qwen.gguf"))
    with pytest.raises(ModelFileMissing):
        await house.service.start(house.model)
    assert house.runner.starts() == []
