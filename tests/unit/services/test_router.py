"""The router's driver: leases, joins, failures and endings, over a serving that is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import attrs
import pytest
from support.gateway import FakeServing, model, running_server
from support.upstream import ScriptedUpstream

from gglib.bootstrap import SystemClock
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.ownership import OwnerKind
from gglib.errors import BreakerOpen, QueueFull, ShuttingDown, StartFailed, Unloaded
from gglib.services.routing.planners import CountPlanner
from gglib.services.routing.router import Eviction, Lease, Router, open_router
from gglib.services.routing.scheduler import ResidentPhase
from gglib.services.routing.terms import Policy, Spot
from gglib.services.serving import RunningServer

pytestmark = pytest.mark.anyio

A, B = model(1, "a"), model(2, "b")
ONE = model(3, "one", concurrency_limit=1)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both loops."""
    return str(request.param)


@asynccontextmanager
async def routing(*, queue_limit: int = 256) -> AsyncIterator[tuple[Router, FakeServing]]:
    serving = FakeServing(ScriptedUpstream())
    async with open_router(
        serving,  # type: ignore[arg-type]
        clock=SystemClock(),
        policy=Policy(queue_limit=queue_limit),
    ) as router:
        with anyio.fail_after(10):
            yield router, serving


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_ten_requests_share_one_start() -> None:
    """Each gets a lease on the one server."""
    leases: list[Lease] = []

    async def one(router: Router) -> None:
        leases.append(await router.acquire(A))

    async with routing() as (router, serving):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one, router)
        assert serving.starts == ["a"]
        assert {lease.server.server_id for lease in leases} == {"server-1"}
        assert router.residents()[0].in_flight == 10
        for lease in leases:
            lease.release()
            lease.release()
        assert router.residents()[0].in_flight == 0


async def test_try_lease_grants_only_what_is_ready() -> None:
    """Never waits, never starts anything."""
    async with routing() as (router, serving):
        assert router.try_lease(A) is None
        assert serving.starts == []
        async with router.lease(A):
            lease = router.try_lease(A)
            assert lease is not None
            lease.release()
            assert router.try_lease(B) is None


async def test_try_lease_obeys_the_concurrency_limit() -> None:
    """The second waits in the queue, where order holds."""
    async with routing() as (router, _serving):
        async with router.lease(ONE):
            assert router.try_lease(ONE) is None
        lease = router.try_lease(ONE)
        assert lease is not None
        lease.release()


async def test_failed_start_is_told_to_each_waiter_as_its_own_error() -> None:
    """No exception object is shared between tasks."""
    errors: list[StartFailed] = []

    async def one(router: Router) -> None:
        with pytest.raises(StartFailed) as caught:
            await router.acquire(A)
        errors.append(caught.value)

    async with routing() as (router, serving):
        serving.failure = StartFailed("a", 7, ("no",))
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one, router)
        assert len({id(error) for error in errors}) == 3
        assert {error.exit_status for error in errors} == {7}
        with pytest.raises(BreakerOpen, match="status 7"):
            await router.acquire(A)
        serving.failure = None
        await router.load(A)
        async with router.lease(A):
            assert serving.starts == ["a", "a"]


async def test_adapter_bug_in_a_start_is_a_failed_start() -> None:
    """The gateway lives on."""
    async with routing() as (router, serving):
        serving.failure = ZeroDivisionError("oops")  # type: ignore[assignment]
        with pytest.raises(StartFailed, match="oops"):
            await router.acquire(A)
        serving.failure = None
        assert (await router.load(A)).model == A


async def test_swap_stops_one_before_it_starts_the_other() -> None:
    """Two models never have the memory at once."""
    async with routing() as (router, serving):
        async with router.lease(A):
            pass
        async with router.lease(B) as lease:
            assert serving.stops == ["a"]
            assert lease.server.model.name == "b"
        assert serving.starts == ["a", "b"]


async def test_cancelled_waiter_is_forgotten_and_its_start_called_off() -> None:
    """Nobody else waits: the load would only cost."""
    async with routing() as (router, serving):
        serving.hold = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router.acquire, A)
            await serving.start_asked.wait()
            tasks.cancel_scope.cancel()
        await settle()
        assert router.residents() == []


async def test_cancelled_holder_of_a_grant_gives_it_back() -> None:
    """A grant that nobody took up does not leak."""
    async with routing() as (router, _serving):
        async with router.lease(ONE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(router.acquire, ONE)
                await settle()
                assert router.residents()[0].queued == 1
                tasks.cancel_scope.cancel()
            assert router.residents()[0].queued == 0
        assert router.residents()[0].in_flight == 0


async def test_dead_server_is_replaced_and_its_callbacks_run_once() -> None:
    """The next lease is on a new one."""
    gone: list[str] = []
    async with routing() as (router, serving):
        router.on_server_gone(lambda server, _why: gone.append(server.server_id))
        async with router.lease(A) as lease:
            serving.die()
            assert await router.is_gone(lease.server)
        async with router.lease(A) as lease:
            assert lease.server.server_id == "server-2"
        await settle()
        assert gone == ["server-1"]


async def test_living_server_is_not_taken_for_dead() -> None:
    """A dropped connection alone is no death."""
    async with routing() as (router, serving):
        async with router.lease(A) as lease:
            assert not await router.is_gone(lease.server)
        async with router.lease(A):
            assert serving.starts == ["a"]


async def test_unload_waits_for_what_is_in_flight_and_releases_waiters() -> None:
    """Who waits gets an error; a later request starts it again."""

    async def waiter(router: Router) -> None:
        with pytest.raises(Unloaded):
            await router.acquire(ONE)

    async with routing() as (router, serving):
        async with anyio.create_task_group() as tasks:
            async with router.lease(ONE):
                tasks.start_soon(waiter, router)
                await settle()
                assert router.unload(ONE)
                await settle()
                assert serving.stops == []
            await router.wait_unloaded(ONE)
        assert serving.stops == ["one"]
        assert not router.unload(ONE)
        async with router.lease(ONE):
            assert serving.starts == ["one", "one"]


async def test_unload_that_cuts_stops_at_once() -> None:
    """Also while something is in flight."""
    async with routing() as (router, serving):
        async with router.lease(A):
            router.unload(A, cut=True)
            await router.wait_unloaded(A)
            assert serving.stops == ["a"]


async def test_full_queue_is_refused() -> None:
    """At once."""
    async with routing(queue_limit=0) as (router, _serving):
        with pytest.raises(QueueFull):
            await router.acquire(A)


async def test_shutdown_rejects_and_close_stops_everything() -> None:
    """Nothing is left when the block is left."""
    async with routing() as (router, serving):
        async with router.lease(A):
            router.begin_shutdown()
            with pytest.raises(ShuttingDown):
                await router.acquire(B)
            assert router.try_lease(A) is None
            assert router.residents()[0].phase is ResidentPhase.READY
    assert serving.stops == ["a"]


async def test_leaving_while_a_start_is_under_way_calls_it_off() -> None:
    """A cancelled start is the serving service's to clean up."""
    async with routing() as (router, serving):
        serving.hold = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def waiter() -> None:
                with pytest.raises(ShuttingDown):
                    await router.acquire(A)

            tasks.start_soon(waiter)
            await serving.start_asked.wait()
            await router.close()
        assert router.residents() == []


async def test_router_that_is_cancelled_stops_its_servers_and_ends() -> None:
    """As by a time limit around it: what it holds is not cancelled with it."""
    serving = FakeServing(ScriptedUpstream())
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with open_router(
            serving,  # type: ignore[arg-type]
            clock=SystemClock(),
        ) as router:
            async with router.lease(A):
                scope.cancel()
                await anyio.sleep_forever()
    assert serving.stops == ["a"]


async def test_runner_that_cannot_wait_for_its_server_harms_nobody_else() -> None:
    """The server is stopped, and its model started again when it is wanted."""
    async with routing() as (router, serving):

        async def wait_gone(server: RunningServer) -> int | None:
            raise ZeroDivisionError("oops")

        serving.wait_gone = wait_gone  # type: ignore[method-assign]
        async with router.lease(A) as lease:
            assert await router.is_gone(lease.server)
        await settle()
        assert serving.stops == ["a"]
        del serving.wait_gone
        async with router.lease(A):
            assert serving.starts == ["a", "a"]


class BrokenLedger:
    """What a ledger is over a stranger's process table and catalog, both broken."""

    async def place(self, model: Model, runner: str) -> Spot:
        return Spot(runner=runner)

    async def observe(self, server: RunningServer) -> bool:
        raise ZeroDivisionError("oops")

    async def remember(self, server: RunningServer, requests: int) -> None:
        raise ZeroDivisionError("oops")


async def test_server_is_stopped_though_nothing_can_be_learnt_from_it() -> None:
    """Neither a look at its memory nor what is kept of it is in the way of its end."""
    serving = FakeServing(ScriptedUpstream())
    evicted: list[str] = []
    async with open_router(
        serving,  # type: ignore[arg-type]
        clock=SystemClock(),
        ledger=BrokenLedger(),  # type: ignore[arg-type]
    ) as router:

        async def note(eviction: Eviction) -> None:
            evicted.append(eviction.reason)

        router.on_evicted(note)
        with anyio.fail_after(10):
            for each in (A, B):
                async with router.lease(each):
                    pass
    assert serving.stops == ["a", "b"]
    assert evicted == ["swap", "shutdown"]


async def test_request_that_was_resolved_before_a_change_starts_the_model_as_it_is_now() -> None:
    """Whoever still holds the old one means the new one."""
    changed = attrs.evolve(A, defaults=ModelDefaults(server={"context_size": 512}))
    async with routing() as (router, serving):
        async with router.lease(A):
            pass
        router.change(changed)
        await router.wait_unloaded(A)
        async with router.lease(A) as lease:
            assert lease.server.model is changed
        pinned = attrs.evolve(changed, defaults=attrs.evolve(changed.defaults, pinned=True))
        router.change(pinned)
        lease_now = router.try_lease(pinned)
        assert lease_now is not None
        lease_now.release()
        (await router.acquire(changed)).release()
        assert router.residents()[0].pinned
        assert serving.starts == ["a", "a"]


async def test_what_is_learnt_of_a_server_leaves_the_model_as_it_is_now() -> None:
    """A server's model is as it was when that started."""
    changed = attrs.evolve(A, defaults=ModelDefaults(pinned=True))
    async with routing() as (router, _serving):
        async with router.lease(A) as lease:
            router.change(changed)
            await router.learn(lease.server.model)
            assert router.residents()[0].pinned
            again = router.try_lease(changed)
            assert again is not None
            again.release()


async def test_idle_time_of_all_models_holds_at_once() -> None:
    """Also for what idles already."""
    async with routing() as (router, _serving):
        async with router.lease(A):
            pass
        assert router.residents()[0].ttl_left_s is None
        router.set_policy(Policy(), CountPlanner(1), 0.01)
        await router.wait_unloaded(A)
        assert router.residents() == []


async def test_retired_model_goes_and_a_server_that_was_started_by_hand_stays() -> None:
    """It is its starter's."""
    async with routing() as (router, serving):
        found = running_server("by-hand", A, 1)
        owner = attrs.evolve(found.record.owner, kind=OwnerKind.STANDALONE)
        found = attrs.evolve(found, record=attrs.evolve(found.record, owner=owner))
        serving.deaths["by-hand"] = anyio.Event()
        assert await router.take_over(found)
        router.retire(A)
        router.change(attrs.evolve(A, defaults=ModelDefaults(server={"threads": 1})))
        await settle()
        assert [view.server for view in router.residents()] == [found]
