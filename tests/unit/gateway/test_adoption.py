"""Servers on a machine that was away when their next gateway began, and goes away again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import attrs
import pytest

from gglib.bootstrap import SystemClock, compose
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.ownership import Asker, OwnerKind, ServerRecord
from gglib.errors import NodeUnreachable
from gglib.gateway.adoption import Adoption
from gglib.ports.server_registry import ServerRegistry
from gglib.services.pool import Pool
from gglib.services.routing.router import Router
from gglib.settings import PoolSettings, Settings
from gglib.testing import MockRunner
from gglib.testing.contexts import RecordingSink
from gglib.testing.mocked_library import mock_adapters

pytestmark = pytest.mark.anyio

GIB = 2**30
AWAY = NodeUnreachable("box", "connect", "connection refused", "is it on?")


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


class Box(MockRunner):
    """A machine that goes away just before it would answer one kind of question."""

    cut_at: str | None = None

    def _ask(self, question: str) -> None:
        if self.cut_at == question:
            self.away, self.cut_at = AWAY, None

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """See ``ProcessRunner``."""
        self._ask("health")
        return await super().health(handle)

    async def adopt(self, handle: ProcessHandle) -> None:
        """See ``ProcessRunner``."""
        self._ask("adopt")
        await super().adopt(handle)

    async def devices(self) -> Sequence[Device] | None:
        """See ``ProcessRunner``."""
        self._ask("devices")
        return await super().devices()


@attrs.frozen
class Second:
    """The gateway after one that was killed, whose server runs on the box."""

    box: Box
    adoption: Adoption
    router: Router
    pool: Pool
    registry: ServerRegistry
    model: Model
    left: ServerRecord

    async def until_adopted(self) -> None:
        """Look, again and again, until the server is a resident."""
        while not self.router.residents():
            await self.adoption.settled("box")
            await anyio.sleep(0.01)


@asynccontextmanager
async def second_gateway(folder: Path, *, memory_bytes: int) -> AsyncIterator[Second]:
    """Begin one for the block, while the box is away."""
    clock = SystemClock()
    box = Box(clock=clock, name="box", node="box")
    box.far_devices = [
        Device(name="cpu", kind="cpu", total_bytes=64 * GIB, free_bytes=60 * GIB),
        Device(name="cuda0", kind="cuda", total_bytes=24 * GIB, free_bytes=8 * GIB),
    ]
    given = attrs.evolve(mock_adapters(MockRunner(clock=clock)), runners={"box": box})
    settings = Settings(data_dir=folder, pool=PoolSettings(health_check_interval_s=None))
    async with compose(settings, events=RecordingSink(), clock=clock, given=given) as parts:
        models, registry = await parts.models(), await parts.registry()
        defaults = ModelDefaults(runner="box", memory_bytes=memory_bytes)
        model = await models.add("/big.gguf", defaults=defaults)
        first = await (await parts.serving(OwnerKind.GATEWAY)).start(model)
        killed = attrs.evolve(first.record.owner, process_started_at=1.0)
        left = attrs.evolve(first.record, owner=killed)
        await registry.put(left)
        box.away = AWAY
        serving = await parts.serving(OwnerKind.GATEWAY)
        with anyio.fail_after(20):
            async with parts.pool(serving) as (router, pool):
                reconcile = partial(parts.reconcile, Asker.ADOPTING_GATEWAY)
                found = await reconcile()
                assert (found.adoptable, found.away) == ((), ("box",))
                adoption = Adoption(
                    reconcile,
                    await parts.runners(),
                    models=models,
                    serving=serving,
                    router=router,
                    pool=pool,
                    away=found.away,
                )
                await pool.measure(afresh=True)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(adoption.adopt_returning)
                    yield Second(box, adoption, router, pool, registry, model, left)
                    tasks.cancel_scope.cancel()


@pytest.mark.parametrize("question", ["health", "adopt", "devices"])
async def test_server_is_taken_over_though_its_machine_goes_away_in_the_midst_of_it(
    tmp_path: Path, question: str
) -> None:
    """It is neither stopped nor forgotten, nor started a second time."""
    async with second_gateway(tmp_path, memory_bytes=GIB) as found:
        found.box.away, found.box.cut_at = None, question
        while found.box.away is None:
            await found.adoption.settled("box")
            await anyio.sleep(0.01)
        await found.adoption.settled("box")
        assert not found.router.residents()
        assert list(await found.registry.list()) == [found.left]
        found.box.away = None
        await found.until_adopted()
        async with found.router.lease(found.model) as lease:
            assert lease.server.server_id == found.left.server_id
        (handle,) = await found.box.list_running()
        assert handle.server_id == found.left.server_id


async def test_memory_of_a_server_that_is_found_later_is_counted_once(tmp_path: Path) -> None:
    """What it has was not free, and is ours: the rest is for others."""
    async with second_gateway(tmp_path, memory_bytes=15 * GIB) as found:
        found.box.away = None
        await found.until_adopted()
        await found.pool.measure()
        (resident,) = found.router.residents()
        needed = resident.memory["box/cuda0"]
        assert needed > 12 * GIB
        assert found.pool.budgets["box/cuda0"] >= needed + 7 * GIB
