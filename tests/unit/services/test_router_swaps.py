"""The router over the real serving service and mock servers, in a time that leaps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from gglib.bootstrap import compose
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.ownership import OwnerKind
from gglib.errors import StartFailed
from gglib.logs import SilentSink
from gglib.services.routing.router import Router
from gglib.services.routing.scheduler import ResidentPhase
from gglib.services.serving import ServingService
from gglib.settings import GatewaySettings, PoolSettings, RoutingSettings, Settings
from gglib.testing import FakeClock, MockRunner, MockScript
from gglib.testing.mocked_library import mock_adapters

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both loops."""
    return str(request.param)


class Scene:
    """A router, its servers, and what happened to its requests."""

    def __init__(
        self, router: Router, serving: ServingService, runner: MockRunner, clock: FakeClock
    ) -> None:
        self.router = router
        self.serving = serving
        self.runner = runner
        self.clock = clock
        self.waits: list[tuple[str, float]] = []

    async def ask(self, model: Model, *, after_s: float = 0.0, takes_s: float = 0.0) -> None:
        """Be a client: come, wait for a lease, and hold it."""
        await self.clock.sleep(after_s)
        came = self.clock.monotonic()
        async with self.router.lease(model):
            self.waits.append((model.name, self.clock.monotonic() - came))
            await self.clock.sleep(takes_s)

    @property
    def loads(self) -> list[str]:
        """The names of the models that were started, in order."""
        return [call.model_name or "" for call in self.runner.calls if call.method == "start"]

    @property
    def states(self) -> dict[str, ResidentPhase]:
        """The phase of every resident."""
        return {view.model.name: view.phase for view in self.router.residents()}


@asynccontextmanager
async def scene(
    tmp_path: Path,
    *,
    script: MockScript | None = None,
    routing: dict[str, Any] | None = None,
    **pool: Any,
) -> AsyncIterator[Scene]:
    """Route for the block by these settings."""
    clock = FakeClock(auto_advance=True)
    runner = MockRunner(script or MockScript(load_s=0.5), clock=clock)
    settings = Settings(
        data_dir=tmp_path,
        gateway=GatewaySettings(),
        routing=RoutingSettings(**(routing or {"planner": "count"})),
        pool=PoolSettings(**{"max_size": 1, **pool}),
    )
    async with compose(
        settings, events=SilentSink(), clock=clock, given=mock_adapters(runner)
    ) as parts:
        serving = await parts.serving(OwnerKind.LIBRARY)
        async with parts.pool(serving) as (router, _):
            with anyio.fail_after(20):
                yield Scene(router, serving, runner, clock)


def model(number: int, **defaults: Any) -> Model:
    """Return a model."""
    name = "abcdef"[number - 1]
    return Model(
        id=number,
        name=name,
        paths=(Path(f"/{name}.gguf"),),
        size_bytes=1,
        defaults=ModelDefaults(**defaults),
    )


A, B, C = model(1), model(2), model(3)


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.soak)])
async def test_steady_clients_do_not_keep_another_model_waiting(tmp_path: Path, times: int) -> None:
    """B is answered within 2 s, A's drain, and B's load, every time; A loses nothing."""
    async with scene(tmp_path, max_wait_s=2) as stage:
        served = 0

        async def steady(number: int) -> None:
            nonlocal served
            await stage.clock.sleep(0.1 * number)
            while len([name for name, _ in stage.waits if name == "b"]) < times:
                async with stage.router.lease(A):
                    await stage.clock.sleep(0.35)
                served += 1

        async def other() -> None:
            for _ in range(times):
                await stage.ask(B, after_s=3.0, takes_s=0.2)

        async with anyio.create_task_group() as clients:
            for number in range(3):
                clients.start_soon(steady, number)
            clients.start_soon(other)
        waits = [waited for name, waited in stage.waits if name == "b"]
        assert len(waits) == times
        assert max(waits) <= 2 + 0.35 + 0.6
        assert served > 20


async def test_alternating_clients_of_three_models_cost_five_loads_at_most(
    tmp_path: Path,
) -> None:
    """ABCABC from thirty clients, one place: AABBCC."""
    async with scene(tmp_path) as stage:
        async with anyio.create_task_group() as clients:
            for number in range(30):
                who = (A, B, C)[number % 3]
                clients.start_soon(lambda who=who: stage.ask(who, takes_s=0.1))
        assert len(stage.waits) == 30
        assert len(stage.loads) <= 5


async def test_models_that_fit_run_at_once_and_the_least_used_goes(tmp_path: Path) -> None:
    """Two places, and a third model."""
    async with scene(tmp_path, max_size=2) as stage:
        async with anyio.create_task_group() as clients:
            clients.start_soon(stage.ask, A)
            clients.start_soon(stage.ask, B)
        assert [waited for _, waited in stage.waits] == pytest.approx([0.5, 0.5], abs=0.11)
        assert set(stage.states) == {"a", "b"}
        await stage.ask(A, after_s=1)
        await stage.ask(C)
        assert set(stage.states) == {"a", "c"}


async def test_idle_model_is_unloaded_after_its_ttl_and_pinned_ones_are_not(
    tmp_path: Path,
) -> None:
    """A model's own TTL, the pool's, and none."""
    own, pinned, never = model(1, ttl_s=5), model(2, pinned=True), model(3, ttl_s=0)
    async with scene(tmp_path, max_size=4, ttl_s=20) as stage:
        pooled = model(4)
        for each in (own, pinned, never, pooled):
            await stage.ask(each)
        left = {view.model.name: view.ttl_left_s for view in stage.router.residents()}
        assert left["b"] is None
        assert left["d"] == pytest.approx(20, abs=0.5)
        await stage.clock.sleep(10)
        assert set(stage.states) == {"b", "c", "d"}
        await stage.clock.sleep(15)
        assert set(stage.states) == {"b", "c"}


async def test_idle_time_can_be_asked_for(tmp_path: Path) -> None:
    """What is shown follows, and so does the end; busy servers show theirs, too."""
    async with scene(tmp_path, max_size=2, ttl_s=20) as stage:
        async with stage.router.lease(A):
            stage.router.set_ttl(A, 300)
            (view,) = stage.router.residents()
            assert (view.ttl_s, view.ttl_left_s) == (300, None)
        await stage.clock.sleep(100)
        assert set(stage.states) == {"a"}
        stage.router.set_ttl(A, None)
        (view,) = stage.router.residents()
        assert (view.ttl_s, view.ttl_left_s) == (None, None)
        await stage.clock.sleep(1000)
        stage.router.set_ttl(A, 0)
        await stage.router.wait_unloaded(A)
        assert stage.states == {}
        await stage.ask(A)
        (view,) = stage.router.residents()
        assert view.ttl_s == 20


async def test_measured_times_make_patience(tmp_path: Path) -> None:
    """A load that took 3 s and a stop that took 1 s: B waits for 8 times 4 s."""
    async with scene(tmp_path, script=MockScript(load_s=3, stop_delay_s=1)) as stage:
        await stage.ask(B)
        await stage.ask(A)
        await stage.ask(B)
        await stage.ask(A)
        async with anyio.create_task_group() as clients:
            clients.start_soon(lambda: stage.ask(A, takes_s=100))
            clients.start_soon(lambda: stage.ask(B, after_s=1))
            await stage.clock.sleep(2)
            story = stage.router.why(B)
            assert story is not None
            assert story.blocked_by == ("a",)
            assert story.blocked_until_s == pytest.approx(8 * 4 - 1, abs=1)
            clients.cancel_scope.cancel()


async def test_start_that_dies_for_want_of_memory_is_tried_again_in_anothers_place(
    tmp_path: Path,
) -> None:
    """Its client sees nothing of it."""
    async with scene(tmp_path, max_size=3) as stage:
        stage.runner.script(
            "b",
            MockScript(crash_at_s=0.1, load_s=1, crash_lines=("cudaMalloc failed: out of memory",)),
            MockScript(),
        )
        await stage.ask(A)
        await stage.ask(B)
        assert stage.loads == ["a", "b", "b"]
        assert set(stage.states) == {"b"}


async def test_start_that_dies_otherwise_is_told_at_once(tmp_path: Path) -> None:
    """Nobody is evicted for a broken file."""
    async with scene(tmp_path, max_size=3) as stage:
        stage.runner.script("b", MockScript(crash_at_s=0.1, load_s=1, crash_lines=("bad magic",)))
        await stage.ask(A)
        with pytest.raises(StartFailed, match="bad magic"):
            await stage.router.acquire(B)
        assert set(stage.states) == {"a"}


async def test_cut_of_a_drain_that_takes_too_long_ends_the_server(tmp_path: Path) -> None:
    """``max_drain_s``: the one who waits is served, whatever the other does."""
    async with scene(tmp_path, routing={"max_drain_s": 5}, max_wait_s=2) as stage:
        gone: list[str] = []
        stage.router.on_server_gone(lambda server, _why: gone.append(server.model.name))
        async with anyio.create_task_group() as clients:
            clients.start_soon(lambda: stage.ask(A, takes_s=1000))
            clients.start_soon(lambda: stage.ask(B, after_s=1, takes_s=1000))
            await stage.clock.sleep(10)
            assert gone == ["a"]
            assert stage.waits[-1] == ("b", pytest.approx(7.5, abs=0.3))
            clients.cancel_scope.cancel()


async def test_positions_are_told_when_they_change(tmp_path: Path) -> None:
    """To those who listen; never the same one twice."""
    one = model(1, concurrency_limit=1)
    async with scene(tmp_path) as stage:
        told: list[int] = []

        async def listen() -> None:
            lease = await stage.router.acquire(one, on_position=told.append)
            lease.release()

        async with anyio.create_task_group() as clients:
            for _ in range(3):
                clients.start_soon(lambda: stage.ask(one, takes_s=2))
            await stage.clock.sleep(0.1)
            clients.start_soon(listen)
        assert told == [3, 1, 0] or told == [3, 2, 1, 0]


async def test_server_that_was_found_running_serves_without_a_start(tmp_path: Path) -> None:
    """And is watched: when it dies, another takes its place."""
    async with scene(tmp_path) as stage:
        serving = stage.serving
        found = await serving.start(A)
        assert await stage.router.take_over(found)
        assert not await stage.router.take_over(found)
        async with stage.router.lease(A) as lease:
            assert lease.server is found
        stage.runner.crash("a")
        await stage.clock.sleep(1)
        async with stage.router.lease(A) as lease:
            assert lease.server is not found
        assert stage.loads == ["a", "a"]


async def test_pinned_by_hand_stays_and_who_needs_its_place_is_refused(tmp_path: Path) -> None:
    """Until it is unpinned."""
    async with scene(tmp_path) as stage:
        await stage.ask(A)
        await stage.router.set_pinned(A, True)
        with pytest.raises(Exception, match="pinned 'a'"):
            await stage.router.acquire(B)
        await stage.router.set_pinned(A, False)
        await stage.ask(B)
        assert set(stage.states) == {"b"}


async def test_queue_shows_who_waits_and_drain_lets_them_finish(tmp_path: Path) -> None:
    """In order, with how long they have waited."""
    one = model(1, concurrency_limit=1)
    async with scene(tmp_path) as stage:
        async with anyio.create_task_group() as clients:
            for _ in range(3):
                clients.start_soon(lambda: stage.ask(one, takes_s=2))
            await stage.clock.sleep(1)
            assert [(each.position, each.model) for each in stage.router.queue()] == [
                (0, one),
                (1, one),
            ]
            assert stage.router.queue()[0].waited_s == pytest.approx(1)
            assert stage.router.drain(one)
            await stage.router.wait_unloaded(one)
        assert len(stage.waits) == 3
        assert stage.router.residents() == []


async def test_second_server_starts_for_who_waits_and_idles_out_again(tmp_path: Path) -> None:
    """Six requests, two at a time on each server; then one at a time, all on the first."""
    two = model(1, concurrency_limit=2, replicas=2, ttl_s=5)
    async with scene(tmp_path, max_size=2) as stage:
        async with anyio.create_task_group() as clients:
            for _ in range(6):
                clients.start_soon(lambda: stage.ask(two, takes_s=3))
            await stage.clock.sleep(1.5)
            assert [view.in_flight for view in stage.router.residents()] == [2, 2]
        assert [waited for _, waited in stage.waits] == pytest.approx(
            [0.5, 0.5, 1.0, 1.0, 3.5, 3.5], abs=0.3
        )
        for _ in range(4):
            await stage.ask(two, after_s=2)
        assert len(stage.router.residents()) == 1
        assert stage.loads == ["a", "a"]


async def test_second_server_evicts_nobody_and_goes_when_its_place_is_needed(
    tmp_path: Path,
) -> None:
    """B, idle, stays; C then takes the place of the server that A can spare."""
    two = model(1, concurrency_limit=1, replicas=3)
    async with scene(tmp_path, max_size=3) as stage:
        await stage.ask(B)
        async with anyio.create_task_group() as clients:
            for _ in range(4):
                clients.start_soon(lambda: stage.ask(two, takes_s=2))
        assert sorted(view.model.name for view in stage.router.residents()) == ["a", "a", "b"]
        await stage.ask(C)
        assert sorted(view.model.name for view in stage.router.residents()) == ["a", "b", "c"]


async def test_session_keeps_its_server_and_moves_when_that_dies(tmp_path: Path) -> None:
    """Whether it is granted at once or has to wait."""
    two = model(1, concurrency_limit=2, replicas=2)
    async with scene(tmp_path, max_size=2) as stage:
        async with anyio.create_task_group() as clients:
            for _ in range(3):
                clients.start_soon(lambda: stage.ask(two, takes_s=2))
        busy = await stage.router.acquire(two)
        own = await stage.router.acquire(two, session="s")
        assert own.server is not busy.server
        busy.release()
        own.release()
        again = stage.router.try_lease(two, session="s")
        assert again is not None
        assert again.server is own.server
        again.release()
        await stage.runner.stop(own.server.handle)
        assert await stage.router.is_gone(own.server)
        moved = await stage.router.acquire(two, session="s")
        assert moved.server is busy.server
        moved.release()


async def test_unload_ends_all_servers_of_a_model_and_waits_for_them(tmp_path: Path) -> None:
    """Found running ones included: as many are taken over as it may have."""
    two = model(1, replicas=2)
    async with scene(tmp_path, max_size=3) as stage:
        serving = stage.serving
        found = [await serving.start(two) for _ in range(3)]
        assert [await stage.router.take_over(each) for each in found] == [True, True, False]
        assert {view.server for view in stage.router.residents()} == set(found[:2])
        assert stage.router.unload(two)
        await stage.router.wait_unloaded(two)
        assert stage.router.residents() == []
        assert serving.servers == (found[2],)
        await serving.stop(found[2])


async def test_load_whose_client_has_left_goes_on_where_loads_are_finished(
    tmp_path: Path,
) -> None:
    """Else it is called off."""
    for finish_loads, states in ((True, {"a": "ready"}), (False, {})):
        async with scene(tmp_path, routing={"finish_loads": finish_loads}) as stage:
            async with anyio.create_task_group() as clients:
                clients.start_soon(stage.ask, A)
                await stage.clock.sleep(0.2)
                clients.cancel_scope.cancel()
            await stage.clock.sleep(1)
            assert stage.states == states


async def test_model_that_was_changed_is_started_anew_and_nothing_is_cut(tmp_path: Path) -> None:
    """What is in flight ends on the server it has; the next request has one of the new model."""
    changed = attrs.evolve(A, paths=(Path("/other.gguf"),))
    async with scene(tmp_path) as stage:
        held = await stage.router.acquire(A)
        async with anyio.create_task_group() as clients:
            clients.start_soon(lambda: stage.ask(changed))
            await stage.clock.sleep(5)
            assert stage.loads == ["a"]
            held.release()
        (resident,) = stage.router.residents()
        assert resident.server is not None
        assert resident.server.record.config.model_path == Path("/other.gguf")
        assert stage.router.tally.evictions == {"changed": 1}
        await stage.ask(attrs.evolve(changed, aliases=("c",)))
        assert stage.loads == ["a", "a"]


async def test_model_that_is_changed_while_it_starts_is_started_anew(tmp_path: Path) -> None:
    """Nobody who waits gets a server of what it was."""
    changed = attrs.evolve(A, paths=(Path("/other.gguf"),))
    async with scene(tmp_path) as stage:
        async with anyio.create_task_group() as clients:
            clients.start_soon(lambda: stage.ask(A))
            await stage.clock.sleep(0.1)
            clients.start_soon(lambda: stage.ask(changed))
        (resident,) = stage.router.residents()
        assert resident.server is not None
        assert resident.server.record.config.model_path == Path("/other.gguf")
        assert len(stage.waits) == 2


async def test_model_that_is_gone_gives_its_memory_back(tmp_path: Path) -> None:
    """When what is in flight has ended; one that was started by hand runs on."""
    async with scene(tmp_path, max_size=2) as stage:
        found = await stage.serving.start(B)
        by_hand = attrs.evolve(found.record.owner, kind=OwnerKind.STANDALONE)
        found = attrs.evolve(found, record=attrs.evolve(found.record, owner=by_hand))
        assert await stage.router.take_over(found)
        held = await stage.router.acquire(A)
        await stage.router.take_note([A, B])
        assert stage.router.residents()[0].closing is None
        await stage.router.take_note([])
        await stage.clock.sleep(5)
        assert set(stage.states) == {"a", "b"}
        held.release()
        await stage.clock.sleep(5)
        assert set(stage.states) == {"b"}
