"""The router over several runners, whose machines go away and come back; servers are on paper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from gglib.bootstrap import Composition, SystemClock, compose
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.ownership import OwnerKind
from gglib.errors import BreakerOpen, NodeUnreachable, NotStarted, StartFailed
from gglib.services.pool import Pool
from gglib.services.routing.router import Router
from gglib.services.serving import RunningServer, ServingService
from gglib.settings import PoolSettings, Settings
from gglib.testing import MockRunner, MockScript
from gglib.testing.contexts import RecordingSink
from gglib.testing.mocked_library import mock_adapters

pytestmark = pytest.mark.anyio

GIB = 2**30
BOTH: dict[str, Any] = {"runner": ("box", "attic"), "concurrency_limit": 1}


def away(node: str) -> NodeUnreachable:
    """Return why a machine cannot be reached."""
    return NodeUnreachable(node, "connect", "connection refused", "is it on?")


class Broken(MockRunner):
    """Cannot tell whether a server runs, for a reason of its own."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.broke = anyio.Event()

    async def is_running(self, handle: ProcessHandle) -> bool:
        """Break."""
        self.broke.set()
        raise RuntimeError(handle.server_id)


class Flapping(MockRunner):
    """Tells whether a server runs, and is away by the time it is to be ended."""

    async def is_running(self, handle: ProcessHandle) -> bool:
        """It does."""
        return True


@attrs.frozen
class House:
    """A router over two machines, ``box`` and ``attic``."""

    parts: Composition
    serving: ServingService
    router: Router
    pool: Pool
    box: MockRunner
    attic: MockRunner

    async def add(self, name: str, **defaults: Any) -> Model:
        """Keep a model."""
        models = await self.parts.models()
        return await models.add(f"/{name}.gguf", defaults=ModelDefaults(**defaults))

    async def served_by(self, model: Model) -> str:
        """Return the runner of the server that a request gets."""
        async with self.router.lease(model) as lease:
            return lease.server.record.runner

    async def take_over_by_hand(self, model: Model) -> RunningServer:
        """Have a server of the model be started by hand, and the router take it over."""
        alone = await self.parts.serving(OwnerKind.STANDALONE)
        server = await self.serving.adopt((await alone.start(model)).record, model)
        assert server is not None
        assert server.by_hand
        assert await self.router.take_over(server)
        return server

    async def lose(self, server: RunningServer) -> None:
        """Let the machine of a server be away, and a request find that out."""
        runner = {"box": self.box, "attic": self.attic}[server.record.runner]
        runner.away = away(server.record.runner)
        assert await self.router.way_to(server) is not None

    async def until(self, *servers: tuple[str, str]) -> None:
        """Return when the servers are in these phases on these runners."""
        while sorted((str(v.runner), str(v.phase)) for v in self.router.residents()) != sorted(
            servers
        ):
            await anyio.sleep(0.01)


@asynccontextmanager
async def house(
    folder: Path,
    *,
    box: MockRunner | None = None,
    owner: OwnerKind = OwnerKind.LIBRARY,
    events: RecordingSink | None = None,
) -> AsyncIterator[House]:
    """Hold one for the block; each machine has 8 GiB."""
    clock = SystemClock()
    box = box or MockRunner(clock=clock, name="box", node="box")
    attic = MockRunner(clock=clock, name="attic", node="attic")
    for runner in (box, attic):
        runner.far_devices = [
            Device(name="cpu", kind="cpu", total_bytes=8 * GIB, free_bytes=8 * GIB)
        ]
    given = attrs.evolve(
        mock_adapters(MockRunner(clock=clock)), runners={"box": box, "attic": attic}
    )
    settings = Settings(data_dir=folder, pool=PoolSettings(health_check_interval_s=0.05))
    async with compose(
        settings, events=events or RecordingSink(), clock=clock, given=given
    ) as parts:
        serving = await parts.serving(owner)
        with anyio.fail_after(10):
            async with parts.pool(serving) as (router, pool):
                yield House(parts, serving, router, pool, box, attic)


async def test_model_is_served_by_the_next_runner_when_the_first_is_away(tmp_path: Path) -> None:
    """Its request hears nothing of it, and the story of the model does."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        found.box.away = away("box")
        assert await found.served_by(model) == "attic"
        story = found.router.why(model)
        assert story is not None
        assert [(each.runner, each.servers) for each in story.runners] == [
            ("box", ()),
            ("attic", ("ready",)),
        ]
        assert "box cannot be reached" in str(story.runners[0].why_not)


async def test_memory_of_each_machine_decides_where_a_model_is_started(tmp_path: Path) -> None:
    """The second does not fit beside the first, and nobody goes for it."""
    async with house(tmp_path) as found:
        one = await found.add("one", memory_bytes=6 * GIB, **BOTH)
        two = await found.add("two", memory_bytes=6 * GIB, **BOTH)
        assert await found.served_by(one) == "box"
        assert await found.served_by(two) == "attic"
        needs = {str(view.runner): dict(view.memory) for view in found.router.residents()}
        assert needs == {"box": {"box/cpu": 6 * GIB}, "attic": {"attic/cpu": 6 * GIB}}


async def test_model_whose_runners_are_all_away_is_refused_with_each_ones_reason(
    tmp_path: Path,
) -> None:
    """And asked for again as soon as one is back: no failed start is held against it."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        found.box.away, found.attic.away = away("box"), away("attic")
        for _ in range(3):
            with pytest.raises(NotStarted, match=r"on box: box cannot .*; on attic: attic cannot"):
                await found.router.acquire(model)
        found.attic.away = None
        assert await found.served_by(model) == "attic"


async def test_machine_that_was_away_before_it_could_tell_anything_serves_when_it_is_needed(
    tmp_path: Path,
) -> None:
    """Nobody knew what a model needs there, until the only other one went away."""
    box = MockRunner(clock=SystemClock(), name="box", node="box")
    box.away = away("box")
    async with house(tmp_path, box=box) as found:
        model = await found.add("qwen", **BOTH)
        async with found.router.lease(model) as lease:
            found.attic.away = away("attic")
            assert await found.router.way_to(lease.server) is not None
            assert not found.router.is_passed_over(lease.server)
            box.away = None
            assert await found.router.way_to(lease.server) is not None
        assert await found.served_by(model) == "box"


async def test_error_names_a_runner_of_which_nothing_is_known_yet(tmp_path: Path) -> None:
    """Beside the one where the start has failed."""
    box = MockRunner(clock=SystemClock(), name="box", node="box")
    box.away = away("box")
    async with house(tmp_path, box=box) as found:
        model = await found.add("qwen", **BOTH)
        found.attic.script("qwen", MockScript(start_error=StartFailed("qwen", 1)))
        with pytest.raises(NotStarted, match=r"on box: box cannot .*; on attic: .*status 1"):
            await found.router.acquire(model)


async def test_machine_that_is_back_is_asked_at_once(tmp_path: Path) -> None:
    """Also if a model has no other, and starts there failed for want of it; others do wait."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", runner="box")
        assert await found.served_by(model) == "box"
        found.router.unload(model)
        await found.router.wait_unloaded(model)
        found.box.away = away("box")
        for _ in range(3):
            with pytest.raises(NodeUnreachable):
                await found.router.acquire(model)
        found.box.away = None
        assert await found.served_by(model) == "box"
        found.box.script("qwen", MockScript(start_error=StartFailed("qwen", 1)))
        found.router.unload(model)
        await found.router.wait_unloaded(model)
        with pytest.raises(StartFailed):
            await found.router.acquire(model)
        with pytest.raises(BreakerOpen):
            await found.router.acquire(model)


async def test_machine_that_goes_away_while_a_model_loads_is_not_waited_for(
    tmp_path: Path,
) -> None:
    """Its start goes to the next runner; what it left is ended when it is back."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        found.box.script("qwen", MockScript(load_s=600))
        async with anyio.create_task_group() as tasks:
            served: list[str] = []

            async def ask() -> None:
                served.append(await found.served_by(model))

            tasks.start_soon(ask)
            await found.until(("box", "starting"))
            while not found.box.running:
                await anyio.sleep(0.01)
            found.box.away = away("box")
        assert served == ["attic"]
        assert len(found.box.running) == 1
        found.box.away = None
        registry = await found.parts.registry()
        while found.box.running or len(await registry.list()) > 1:
            await anyio.sleep(0.01)


async def test_start_that_is_called_off_while_its_machine_is_away_is_ended_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Nobody waits for it any more, so nobody else would find what it left."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", runner="box")
        found.box.script("qwen", MockScript(load_s=600))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(found.router.acquire, model)
            while not found.box.running:
                await anyio.sleep(0.01)
            found.box.away = away("box")
            tasks.cancel_scope.cancel()
        await found.until()
        assert len(found.box.running) == 1
        found.box.away = None
        registry = await found.parts.registry()
        while found.box.running or await registry.list():
            await anyio.sleep(0.01)


async def test_requests_go_elsewhere_while_a_machine_is_away_and_its_server_is_found_again(
    tmp_path: Path,
) -> None:
    """It has not died; as the model may have one server, it goes for the one that took over."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        async with found.router.lease(model) as lease:
            await found.lose(lease.server)
            assert await found.served_by(model) == "attic"
        await found.until(("box", "away"), ("attic", "ready"))
        assert len(found.box.running) == 1
        found.box.away = None
        await found.until(("attic", "ready"))
        assert found.box.running == []
        assert len(await (await found.parts.registry()).list()) == 1


async def test_server_that_is_found_again_is_a_replica_where_there_may_be_two(
    tmp_path: Path,
) -> None:
    """Both serve, and none was started for it."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", replicas=2, **BOTH)
        async with found.router.lease(model) as lease:
            await found.lose(lease.server)
            assert await found.served_by(model) == "attic"
        found.box.away = None
        await found.until(("box", "ready"), ("attic", "ready"))
        async with found.router.lease(model) as one, found.router.lease(model) as other:
            runners = {one.server.record.runner, other.server.record.runner}
        assert runners == {"box", "attic"}
        assert (len(found.box.starts()), len(found.attic.starts())) == (1, 1)


async def test_further_server_comes_on_the_other_machine(tmp_path: Path) -> None:
    """Though there is room beside the first."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", replicas=2, **BOTH)
        async with found.router.lease(model), found.router.lease(model) as second:
            assert second.server.record.runner == "attic"


async def test_health_checks_notice_that_a_machine_is_away(tmp_path: Path) -> None:
    """So that the next request need not."""
    async with house(tmp_path) as found, anyio.create_task_group() as upkeep:
        model = await found.add("qwen", **BOTH)
        assert await found.served_by(model) == "box"
        upkeep.start_soon(found.pool.keep)
        found.box.away = away("box")
        await found.until(("box", "away"))
        found.box.away = None
        await found.until(("box", "ready"))
        upkeep.cancel_scope.cancel()


async def test_server_that_died_while_its_machine_was_away_is_gone_when_it_is_back(
    tmp_path: Path,
) -> None:
    """It was the machine that was started anew, say."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        async with found.router.lease(model) as lease:
            await found.lose(lease.server)
        found.box.crash("qwen")
        found.box.away = None
        await found.until()
        assert await found.served_by(model) == "box"


async def test_model_that_is_unloaded_while_its_machine_is_away_ends_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Nothing is left there, nor on record."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        async with found.router.lease(model) as lease:
            await found.lose(lease.server)
        found.router.unload(model)
        await found.router.wait_unloaded(model)
        assert len(found.box.running) == 1
        found.box.away = None
        while found.box.running or await (await found.parts.registry()).list():
            await anyio.sleep(0.01)


async def test_start_on_a_machine_that_is_back_waits_for_the_end_of_what_was_unloaded_there(
    tmp_path: Path,
) -> None:
    """That has its memory until then; while the machine is away, who asks is told so at once."""
    async with house(tmp_path) as found:
        models = [
            await found.add(name, runner="box", memory_bytes=3 * GIB) for name in ("qwen", "phi")
        ]
        other = await found.add("llama", runner="box", memory_bytes=6 * GIB)
        for model in models:
            assert await found.served_by(model) == "box"
        found.box.away = away("box")
        for model in models:
            found.router.unload(model)
            await found.router.wait_unloaded(model)
        with pytest.raises(NodeUnreachable):
            await found.router.acquire(other)
        asked = len(found.box.called)
        found.box.away = None
        assert await found.served_by(other) == "box"
        *ended, last = found.box.called[asked:]
        assert (sorted(ended), last) == (["stop phi", "stop qwen"], "start llama")


async def test_router_ends_though_a_start_waits_for_the_end_of_another(
    tmp_path: Path,
) -> None:
    """What is not ended by then keeps its row, and the next gglib sees to it."""
    box = Flapping(clock=SystemClock(), name="box", node="box")
    async with house(tmp_path, box=box) as found:
        model = await found.add("qwen", runner="box")
        assert await found.served_by(model) == "box"
        box.away = away("box")
        found.router.unload(model)
        await found.router.wait_unloaded(model)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(found.router.acquire, model)
            await found.until(("box", "starting"))
            tasks.cancel_scope.cancel()
        await found.router.close()
    assert len(box.starts()) == 1


async def test_server_that_was_to_end_is_asked_to_only_when_there_is_a_way_to_it(
    tmp_path: Path,
) -> None:
    """Each attempt would be told, and written into its row."""
    events = RecordingSink()
    async with house(tmp_path, events=events) as found:
        model = await found.add("qwen", **BOTH)
        async with found.router.lease(model) as lease:
            await found.lose(lease.server)
        found.router.unload(model)
        await found.router.wait_unloaded(model)
        asked = len(found.box.calls)
        while len(found.box.calls) < asked + 3:
            await anyio.sleep(0.01)
        assert {call.method for call in found.box.calls[asked:]} == {"is_running"}
        assert events.names.count("server.failed") == 1


async def test_runner_that_breaks_when_it_is_to_end_a_server_late_takes_down_no_other(
    tmp_path: Path,
) -> None:
    """A stranger's may raise anything."""
    box = Broken(clock=SystemClock(), name="box", node="box")
    async with house(tmp_path, box=box) as found:
        model = await found.add("qwen", runner="box")
        other = await found.add("llama", runner="attic")
        assert await found.served_by(model) == "box"
        box.away = away("box")
        found.router.unload(model)
        await found.router.wait_unloaded(model)
        await box.broke.wait()
        assert await found.served_by(other) == "attic"


async def test_server_that_was_started_by_hand_runs_on_when_another_has_taken_its_place(
    tmp_path: Path,
) -> None:
    """It is its starter's; pinned, as one that a gateway takes over is."""
    async with house(tmp_path, owner=OwnerKind.GATEWAY) as found:
        model = await found.add("qwen", **BOTH)
        server = await found.take_over_by_hand(model)
        await found.router.set_pinned(model, pinned=True)
        await found.lose(server)
        assert await found.served_by(model) == "attic"
        found.box.away = None
        await found.until(("attic", "ready"))
        assert [each.server_id for each in found.box.running] == [server.server_id]
        assert await (await found.parts.registry()).get(server.server_id) is not None


async def test_server_that_was_started_by_hand_runs_on_when_its_model_was_removed_meanwhile(
    tmp_path: Path,
) -> None:
    """As it would, had its machine been there."""
    async with house(tmp_path, owner=OwnerKind.GATEWAY) as found:
        model = await found.add("qwen", **BOTH)
        server = await found.take_over_by_hand(model)
        await found.lose(server)
        found.router.retire(model)
        found.box.away = None
        await found.until()
        assert [each.server_id for each in found.box.running] == [server.server_id]


async def test_model_that_loses_a_runner_loses_its_server_there(tmp_path: Path) -> None:
    """Its order is no matter of the servers'."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        assert await found.served_by(model) == "box"
        turned = attrs.evolve(model.defaults, runner=("attic", "box"))
        model = attrs.evolve(model, defaults=turned)
        found.router.change(model)
        assert await found.served_by(model) == "box"
        model = attrs.evolve(model, defaults=attrs.evolve(turned, runner="attic"))
        found.router.change(model)
        await found.until()
        assert await found.served_by(model) == "attic"


async def test_servers_on_every_runner_are_taken_over(tmp_path: Path) -> None:
    """By a gateway that comes after one that was killed; one on another runner is ended."""
    async with house(tmp_path, owner=OwnerKind.GATEWAY) as found:
        model = await found.add("qwen", replicas=2, memory_bytes=5 * GIB, **BOTH)
        for runner in ("attic", "box"):
            server = await found.serving.start(model, runner=runner)
            again = await found.serving.adopt(server.record, model)
            assert again is not None
            assert await found.router.take_over(again)
        needs = {str(view.runner): dict(view.memory) for view in found.router.residents()}
        assert needs == {"box": {"box/cpu": 5 * GIB}, "attic": {"attic/cpu": 5 * GIB}}
        only = attrs.evolve(model, defaults=attrs.evolve(model.defaults, runner="box"))
        left = await found.serving.start(only, runner="attic")
        assert await found.serving.adopt(left.record, only) is None
        assert [handle.server_id for handle in found.attic.running] != [left.server_id]


async def test_server_started_by_itself_is_started_on_the_first_runner_that_can(
    tmp_path: Path,
) -> None:
    """As ``gglib start`` does without a gateway."""
    async with house(tmp_path) as found:
        model = await found.add("qwen", **BOTH)
        found.box.away = away("box")
        server = await found.serving.start(model)
        assert server.record.runner == "attic"
        await found.serving.stop(server)
        found.attic.away = away("attic")
        with pytest.raises(NotStarted, match=r"on box: .* on attic: "):
            await found.serving.start(model)
