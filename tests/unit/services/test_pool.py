"""The upkeep of servers, over mock servers in a time that leaps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from gglib.bootstrap import Composition, compose
from gglib.domain.device import Device, DeviceSurvey
from gglib.domain.events import (
    CallbackFailed,
    ContextReduced,
    ServerEvicted,
    ServerUnhealthy,
    WarmUpFailed,
)
from gglib.domain.model import Model, ModelDefaults, ModelFacts
from gglib.domain.ownership import OwnerKind
from gglib.errors import DoesNotFit, StartFailed
from gglib.services import eviction_callbacks
from gglib.services.pool import Pool
from gglib.services.routing.router import Router
from gglib.services.routing.state import Closing
from gglib.services.serving import ServingService
from gglib.settings import PoolSettings, RoutingSettings, Settings
from gglib.testing import FakeClock, MockRunner, MockScript
from gglib.testing.contexts import RecordingSink
from gglib.testing.mock_parts import MockDeviceInventory
from gglib.testing.mocked_library import mock_adapters

pytestmark = pytest.mark.anyio
GIB = 2**30


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both loops."""
    return str(request.param)


@attrs.frozen
class House:
    """A pool, and all that belongs to it."""

    parts: Composition
    serving: ServingService
    router: Router
    pool: Pool
    runner: MockRunner
    clock: FakeClock
    events: RecordingSink

    async def add(self, name: str, **defaults: Any) -> Model:
        """Keep a model."""
        models = await self.parts.models()
        return await models.add(f"/{name}.gguf", defaults=ModelDefaults(**defaults))

    @property
    def names(self) -> list[str]:
        """What is in memory."""
        return [view.model.name for view in self.router.residents()]

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events.events if isinstance(event, kind)]


@asynccontextmanager
async def house(
    tmp_path: Path,
    *,
    script: MockScript | None = None,
    routing: dict[str, Any] | None = None,
    total_bytes: int = 64 * GIB,
    keep: bool = True,
    **pool: Any,
) -> AsyncIterator[House]:
    """Keep a pool for the block."""
    clock = FakeClock(auto_advance=True)
    runner = MockRunner(script or MockScript(load_s=0.5), clock=clock)
    settings = Settings(
        data_dir=tmp_path, routing=RoutingSettings(**(routing or {})), pool=PoolSettings(**pool)
    )
    events = RecordingSink()
    given = attrs.evolve(mock_adapters(runner), devices=MockDeviceInventory(total_bytes))
    async with compose(settings, events=events, clock=clock, given=given) as parts:
        serving = await parts.serving(OwnerKind.GATEWAY)
        async with parts.pool(serving) as (router, kept), anyio.create_task_group() as tasks:
            if keep:
                tasks.start_soon(kept.keep)
            with anyio.fail_after(20):
                yield House(parts, serving, router, kept, runner, clock, events)
            tasks.cancel_scope.cancel()


async def test_server_that_does_not_answer_three_times_is_recycled(tmp_path: Path) -> None:
    """What was in flight is told at once; who waits is served by the new one."""
    sick, well = MockScript(unhealthy=((5.0, 1e9),)), MockScript()
    async with house(tmp_path, health_check_interval_s=10) as home:
        a = await home.add("a", concurrency_limit=1)
        home.runner.script("a", sick, well)
        gone: list[Closing | None] = []
        home.router.on_server_gone(lambda _, why: gone.append(why))
        first = await home.router.acquire(a)
        began = home.clock.monotonic()
        second = await home.router.acquire(a)
        assert home.clock.monotonic() - began == pytest.approx(30, abs=1)
        assert second.server.server_id != first.server.server_id
        assert gone == [Closing.UNHEALTHY]
        first.release()
        second.release()
        (told,) = home.of(ServerUnhealthy)
        assert (told.model_name, told.server_id) == ("a", first.server.server_id)
        assert home.pool.tally.evictions == {"unhealthy": 1}
        assert [event.reason for event in home.of(ServerEvicted)] == ["unhealthy"]


async def test_two_strikes_and_a_good_answer_are_forgotten(tmp_path: Path) -> None:
    """Only three in a row count."""
    script = MockScript(unhealthy=((5.0, 25.0), (35.0, 55.0)))
    async with house(tmp_path, script=script, health_check_interval_s=10) as home:
        a = await home.add("a")
        (await home.router.acquire(a)).release()
        await home.clock.sleep(22)
        (view,) = home.router.residents()
        assert view.server is not None
        assert home.pool.strikes(view.server) == 2
        await home.clock.sleep(60)
        assert home.pool.strikes(view.server) == 0
        assert home.names == ["a"]
        assert not home.of(ServerUnhealthy)


async def test_check_that_hangs_is_a_strike(tmp_path: Path) -> None:
    """It does not hold up the others' checks, nor the next one."""
    async with house(tmp_path, health_check_interval_s=10) as home:
        a = await home.add("a")
        b = await home.add("b")
        for model in (a, b):
            (await home.router.acquire(model)).release()
        real = type(home.runner).health

        async def health(runner: MockRunner, handle: Any) -> Any:
            if handle.model_name == "a":
                await anyio.sleep_forever()
            return await real(runner, handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(home.runner), "health", health)
            await home.clock.sleep(80)
        assert home.names == ["b"]
        (told,) = home.of(ServerUnhealthy)
        assert "no answer in" in told.reason


async def test_checks_can_be_switched_off(tmp_path: Path) -> None:
    """Nobody asks."""
    script = MockScript(unhealthy=((5.0, 1e9),))
    async with house(tmp_path, script=script, health_check_interval_s=None) as home:
        (await home.router.acquire(await home.add("a"))).release()
        await home.clock.sleep(300)
        assert home.names == ["a"]


async def test_health_checks_are_no_use(tmp_path: Path) -> None:
    """A model that is only asked how it is idles out."""
    async with house(tmp_path, health_check_interval_s=1, ttl_s=20) as home:
        (await home.router.acquire(await home.add("a"))).release()
        await home.clock.sleep(19)
        assert home.names == ["a"]
        await home.clock.sleep(3)
        assert home.names == []
        assert home.pool.tally.evictions == {"expired": 1}


async def test_most_recently_used_outlive_their_idle_time(tmp_path: Path) -> None:
    """As many as min_size says; the others go."""
    async with house(tmp_path, min_size=1, ttl_s=20) as home:
        for name in ("a", "b"):
            (await home.router.acquire(await home.add(name))).release()
            await home.clock.sleep(1)
        await home.clock.sleep(100)
        assert home.names == ["b"]
        models = await home.parts.models()
        a = (await models.resolve("a")).model
        (await home.router.acquire(a)).release()
        await home.clock.sleep(1)
        assert home.names == ["a"]
        await home.clock.sleep(100)
        assert home.names == ["a"]


async def test_warmup_loads_what_is_named_and_no_failure_stops_it(tmp_path: Path) -> None:
    """One that is not known, or does not start, is an event."""
    async with house(tmp_path) as home:
        for name in ("a", "broken", "c"):
            await home.add(name)
        home.runner.script("broken", MockScript(start_error=StartFailed("broken", 1, ("no",))))
        models = await home.parts.models()
        await home.pool.warm_up(["a", "nobody", "broken", "c"], models, count=0)
        assert home.names == ["a", "c"]
        assert [event.model_name for event in home.of(WarmUpFailed)] == ["nobody", "broken"]
        assert home.pool.tally.misses == 0


async def test_warmup_without_names_loads_the_most_used(tmp_path: Path) -> None:
    """As many as min_size says, by what earlier gateways have seen."""
    async with house(tmp_path) as home:
        for name, uses in (("a", 1), ("b", 3), ("c", 2)):
            model = await home.add(name)
            for _ in range(uses):
                (await home.router.acquire(model)).release()
        for view in home.router.residents():
            home.router.unload(view.model)
            await home.router.wait_unloaded(view.model)
        await home.clock.sleep(1)
        await home.pool.warm_up([], await home.parts.models(), count=2)
        assert home.names == ["b", "c"]


async def test_callbacks_are_told_after_the_end_and_cannot_do_harm(tmp_path: Path) -> None:
    """Model, device, reason; what one raises is an event."""
    told: list[tuple[str, str, str, list[str]]] = []

    async with house(tmp_path, routing={"planner": "exclusive"}) as home:

        def fail(*_: str) -> None:
            raise RuntimeError("not now")

        def tell(model: str, device: str, reason: str) -> None:
            told.append((model, device, reason, [each.model_name for each in home.runner.running]))

        home.pool.on_evicted(fail)
        home.pool.on_evicted(tell)
        a, b = await home.add("a"), await home.add("b")
        (await home.router.acquire(a)).release()
        (await home.router.acquire(b)).release()
        home.runner.crash("b")
        await home.clock.sleep(1)
        assert [each[:3] for each in told] == [("a", "cpu", "swap"), ("b", "cpu", "died")]
        assert all(model not in running for model, _, _, running in told)
        failed = home.of(CallbackFailed)
        assert len(failed) == 2
        assert "fail" in failed[0].callback
        assert failed[0].reason == "RuntimeError: not now"


async def test_coroutine_callbacks_are_awaited_and_cannot_do_harm(tmp_path: Path) -> None:
    """Together, to their ends; whoever needs the place does not wait for them."""
    told: list[str] = []
    go_on = anyio.Event()

    async with house(tmp_path, routing={"planner": "exclusive"}) as home:

        async def slow(model: str, _device: str, _reason: str) -> None:
            await go_on.wait()
            told.append(f"slow {model}")

        async def fail(*_: str) -> None:
            await anyio.lowlevel.checkpoint()
            raise RuntimeError("not now")

        home.pool.on_evicted(slow)
        home.pool.on_evicted(fail)
        home.pool.on_evicted(lambda model, *_: told.append(f"quick {model}"))
        a, b = await home.add("a"), await home.add("b")
        (await home.router.acquire(a)).release()
        (await home.router.acquire(b)).release()
        await home.clock.sleep(1)
        assert told == ["quick a"]
        go_on.set()
        await home.clock.sleep(1)
        assert told == ["quick a", "slow a"]
        assert [each.reason for each in home.of(CallbackFailed)] == ["RuntimeError: not now"]
    assert told == ["quick a", "slow a", "quick b", "slow b"], "a closing library awaits them"


async def test_coroutine_callback_is_not_broken_off_by_a_cancelled_router(tmp_path: Path) -> None:
    """What it has begun it ends."""
    told: list[str] = []

    async def slow(model: str, *_: str) -> None:
        await anyio.sleep(0.01)
        told.append(model)

    with anyio.CancelScope() as scope:
        async with house(tmp_path) as home:
            home.pool.on_evicted(slow)
            (await home.router.acquire(await home.add("a"))).release()
            scope.cancel()
    assert told == ["a"]


async def test_coroutine_callback_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And said to be late: the library closes all the same."""
    monkeypatch.setattr(eviction_callbacks, "AWAITED_AT_MOST_S", 0.01)
    async with house(tmp_path) as home:

        async def stuck(*_: str) -> None:
            await anyio.sleep_forever()

        home.pool.on_evicted(stuck)
        (await home.router.acquire(await home.add("a"))).release()
    (failed,) = home.of(CallbackFailed)
    assert "stuck" in failed.callback
    assert failed.reason == "it took longer than 0.01 s"


async def test_hits_misses_and_loads_are_counted(tmp_path: Path) -> None:
    """The rate is 0.0 when there were none."""
    async with house(tmp_path, routing={"planner": "exclusive"}) as home:
        tally = home.pool.tally
        assert (tally.hit_rate, tally.hits, tally.misses) == (0.0, 0, 0)
        a, b = await home.add("a", concurrency_limit=1), await home.add("b")
        held = await home.router.acquire(a)
        async with anyio.create_task_group() as tasks:

            async def wait_for_a_slot() -> None:
                (await home.router.acquire(a)).release()

            tasks.start_soon(wait_for_a_slot)
            await home.clock.sleep(1)
            held.release()
        (await home.router.acquire(b)).release()
        home.runner.script("a", MockScript(start_error=StartFailed("a", 1, ())))
        with pytest.raises(StartFailed):
            await home.router.acquire(a)
        assert (tally.hits, tally.misses, tally.loads, tally.failures) == (1, 3, 2, 1)
        assert tally.hit_rate == 0.25


async def test_models_share_memory_as_far_as_it_reaches(tmp_path: Path) -> None:
    """The next one evicts the least recently used, and one that never fits is refused."""
    async with house(tmp_path, total_bytes=16 * GIB) as home:
        a, b, c = [await home.add(name, memory_bytes=6 * GIB) for name in "abc"]
        for model in (a, b):
            (await home.router.acquire(model)).release()
            await home.clock.sleep(1)
        assert home.names == ["a", "b"]
        (await home.router.acquire(c)).release()
        assert home.names == ["b", "c"]
        large = await home.add("large", memory_bytes=20 * GIB)
        with pytest.raises(DoesNotFit) as caught:
            await home.router.acquire(large)
        assert (caught.value.needed_bytes, caught.value.device) == (20 * GIB, "cpu")
        assert caught.value.available_bytes == home.pool.budgets["cpu"]
        assert "needs 20.0 GiB, cpu has 15.2 GiB" in str(caught.value)


async def test_never_more_servers_than_the_pool_may_have(tmp_path: Path) -> None:
    """Five by default, however much memory there is."""
    async with house(tmp_path) as home:
        for name in "abcdef":
            (await home.router.acquire(await home.add(name))).release()
            await home.clock.sleep(1)
        assert home.names == ["b", "c", "d", "e", "f"]


async def test_who_waits_for_memory_starts_when_there_is_more(tmp_path: Path) -> None:
    """A measurement that finds more is as good as an eviction."""
    async with house(tmp_path, total_bytes=16 * GIB) as home:
        a = await home.add("a", memory_bytes=10 * GIB, priority=5)
        b = await home.add("b", memory_bytes=10 * GIB)
        held = await home.router.acquire(a)
        devices = await home.parts.devices()
        assert isinstance(devices, MockDeviceInventory)
        waited: list[float] = []

        async def wait() -> None:
            began = home.clock.monotonic()
            (await home.router.acquire(b)).release()
            waited.append(home.clock.monotonic() - began)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await home.clock.sleep(5)
            assert home.names == ["a"]
            devices.total_bytes = 64 * GIB
        assert waited[0] < 15
        held.release()


async def test_driver_that_hangs_keeps_nobody_from_seeing_that_a_server_does(
    tmp_path: Path,
) -> None:
    """Memory and health are looked at apart."""
    async with house(tmp_path, keep=False, health_check_interval_s=10) as home:
        a = await home.add("a")
        home.runner.script("a", MockScript(unhealthy=((5.0, 1e9),)))
        (await home.router.acquire(a)).release()

        async def survey() -> DeviceSurvey:
            await anyio.sleep_forever()
            raise AssertionError("not reached")

        devices = await home.parts.devices()
        devices.survey = survey  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(home.pool.keep)
            await home.clock.sleep(35)
            assert [event.model_name for event in home.of(ServerUnhealthy)] == ["a"]
            tasks.cancel_scope.cancel()


async def test_who_waits_is_held_to_what_it_needs_of_the_memory_there_is_now(
    tmp_path: Path,
) -> None:
    """A budget that shrank is no reason to refuse what was to have more layers on the GPU."""
    async with house(tmp_path, total_bytes=64 * GIB, max_size=1) as home:
        devices = await home.parts.devices()
        gpu_bytes = 24 * GIB

        async def survey() -> DeviceSurvey:
            found = [("cpu", 64 * GIB), ("cuda0", gpu_bytes)]
            return DeviceSurvey(
                devices=[
                    Device(name=name, kind=name.rstrip("0"), total_bytes=size, free_bytes=size)
                    for name, size in found
                ]
            )

        devices.survey = survey  # type: ignore[method-assign]
        await home.pool.measure()
        a = await home.add("a", server={"gpu_layers": 0})
        models = await home.parts.models()
        catalog = await home.parts.catalog()
        b = attrs.evolve(await home.add("b"), size_bytes=20 * GIB)
        await catalog.update(b)
        b = (await models.resolve("b")).model
        held = await home.router.acquire(a)

        async def wait() -> None:
            (await home.router.acquire(b)).release()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await home.clock.sleep(1)
            gpu_bytes = 16 * GIB
            await home.clock.sleep(15)
            assert [each.model.name for each in home.router.queue()] == ["b"]
            held.release()


async def test_model_with_too_large_a_context_is_started_with_less(tmp_path: Path) -> None:
    """The engine is told, the event says so, and what runs keeps what it has."""
    facts = ModelFacts(
        architecture="llama",
        layers=32,
        heads=32,
        kv_heads=8,
        embedding_size=4096,
        feed_forward_size=14336,
        vocabulary_size=128256,
        context_length=131072,
    )
    async with house(tmp_path, total_bytes=16 * GIB) as home:
        catalog, models = await home.parts.catalog(), await home.parts.models()
        added = await home.add("a")
        await catalog.update(attrs.evolve(added, size_bytes=4 * GIB, facts=facts))
        a = (await models.resolve("a")).model
        first = await home.router.acquire(a)
        size = first.server.record.config.context_size
        assert size is not None
        assert 32768 < size < 131072
        (told,) = home.of(ContextReduced)
        assert (told.model_name, told.context_size, told.full_context_size) == ("a", size, 131072)
        (view,) = home.router.residents()
        assert 14 * GIB < view.memory["cpu"] <= home.pool.budgets["cpu"]
        devices = await home.parts.devices()
        assert isinstance(devices, MockDeviceInventory)
        devices.total_bytes = 12 * GIB
        await home.clock.sleep(15)
        (again,) = home.router.residents()
        assert (again.server, again.closing) == (first.server, None)
        serving = home.serving
        assert await serving.adopt(first.server.record, a) is not None
        first.release()
        assert home.router.unload(a)
        await home.router.wait_unloaded(a)
        second = await home.router.acquire(a)
        assert (second.server.record.config.context_size or 0) < size
        second.release()


async def test_other_interval_of_checks_holds_at_once(tmp_path: Path) -> None:
    """Nobody waits for the end of the old one."""
    sick = MockScript(unhealthy=((1.0, 1e9),))
    async with house(tmp_path, script=sick, health_check_interval_s=10_000) as home:
        (await home.router.acquire(await home.add("a"))).release()
        await home.clock.sleep(50)
        assert not home.of(ServerUnhealthy)
        await home.pool.change(health_check_interval_s=5, limits={})
        await home.clock.sleep(50)
        assert home.of(ServerUnhealthy)


async def test_other_budgets_let_those_start_who_wait(tmp_path: Path) -> None:
    """What was too large is let in, and the other way round."""
    async with house(tmp_path, routing={"budgets": {"cpu": GIB}}) as home:
        large = await home.add("large", memory_bytes=2 * GIB)
        with pytest.raises(DoesNotFit):
            await home.router.acquire(large)
        await home.pool.change(health_check_interval_s=None, limits={"cpu": 3 * GIB})
        (await home.router.acquire(large)).release()
        assert home.pool.budgets == {"cpu": 3 * GIB}
