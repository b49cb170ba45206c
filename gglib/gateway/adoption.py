"""Servers that another process started, taken over while they are ready: no reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

import anyio
import attrs

from gglib.domain.model import Model
from gglib.domain.ownership import ServerRecord
from gglib.errors import GglibError, NodeUnreachable
from gglib.ports.process_runner import ProcessRunner
from gglib.services.models import ModelService
from gglib.services.ownership import Reconciliation
from gglib.services.pool import Pool
from gglib.services.routing.router import Router
from gglib.services.serving import RunningServer, ServingService

__all__ = ["Adoption"]

#: How soon, and at last how often, a machine is looked for that was away at the start.
_FIRST_LOOK_S, _LATER_LOOK_S = 1.0, 10.0
#: How long a start waits for what runs on a machine that can be reached to be decided on.
_LONGEST_WAIT_S = 15.0


@attrs.define(eq=False)
class _Absence:
    """That a machine is away, of which is not known what runs there."""

    asked: anyio.Event = attrs.field(factory=anyio.Event)
    """Somebody waits for the next look."""
    looked: anyio.Event = attrs.field(factory=anyio.Event)

    def tell(self) -> None:
        """Have it known that there was a look."""
        looked, self.looked = self.looked, anyio.Event()
        looked.set()


class Adoption:
    """Makes residents of the servers on record; one that cannot be is stopped.

    One that was started by hand (``gglib start``) is never stopped here: it is pinned, or, if it
    cannot be taken over, runs on beside. One that fails does not keep the others from being
    taken over, and one whose machine goes away meanwhile is looked at again when that is back.
    """

    def __init__(
        self,
        reconcile: Callable[[Mapping[str, ProcessRunner]], Awaitable[Reconciliation]],
        runners: Mapping[str, ProcessRunner],
        *,
        models: ModelService,
        serving: ServingService,
        router: Router,
        pool: Pool,
        away: Iterable[str],
    ) -> None:
        """``reconcile`` decides on the servers of some runners, but not of those ``away``."""
        self._reconcile = reconcile
        self._runners = runners
        self._models = models
        self._serving = serving
        self._router = router
        self._pool = pool
        self._away = {name: _Absence() for name in away}
        serving.hold_starts(self.settled)

    async def adopt(self, records: Iterable[ServerRecord]) -> None:
        """Take over the servers on record."""
        for name in await self._lost_in(records):
            self._away.setdefault(name, _Absence())

    async def adopt_returning(self) -> None:
        """Decide on the servers of machines that are away, once they can be reached."""
        async with anyio.create_task_group() as tasks:
            for name, absence in list(self._away.items()):
                tasks.start_soon(self._adopt_when_back, name, absence)

    async def settled(self, name: str) -> None:
        """Return when the servers of a runner have been decided on, or cannot be yet.

        What would be started there may run there already.
        """
        absence = self._away.get(name)
        if absence is not None:
            looked = absence.looked
            absence.asked.set()
            # What cannot be decided on, say for a full disk, must not keep the model away.
            with anyio.move_on_after(_LONGEST_WAIT_S):
                await looked.wait()

    async def _adopt_when_back(self, name: str, absence: _Absence) -> None:
        runner, pause_s = self._runners[name], _FIRST_LOOK_S
        try:
            while True:
                with anyio.move_on_after(pause_s):
                    await absence.asked.wait()
                absence.asked = anyio.Event()
                try:
                    # Asked by itself: a reconciliation would tell of its absence each time.
                    await runner.list_running()
                except Exception:
                    absence.tell()
                    pause_s = min(2 * pause_s, _LATER_LOOK_S)
                    continue
                if await self._is_decided(name, runner):
                    return
                pause_s = _FIRST_LOOK_S
        finally:
            del self._away[name]
            absence.tell()

    async def _is_decided(self, name: str, runner: ProcessRunner) -> bool:
        # Where the catalog or the registry cannot be used now, they may be later.
        with suppress(Exception):
            found = await self._reconcile({name: runner})
            if found.adoptable:
                await self._pool.make_room_on(name)
            lost = await self._lost_in(found.adoptable)
            if found.adoptable:
                await self._pool.measure()
            return not (found.away or lost)
        return False

    async def _lost_in(self, records: Iterable[ServerRecord]) -> set[str]:
        """Take over the servers on record; return the runners whose machine went away meanwhile."""
        known = {model.id: model for model in await self._models.list()}
        lost = set()
        for record in records:
            try:
                await self._adopt(record, known.get(record.config.model_id))
            except NodeUnreachable:
                lost.add(record.runner)
            except Exception:  # noqa: S112
                # One may have ended meanwhile, or not be to be stopped, or its runner is a
                # stranger's with a bug: its row stays then, and doctor shows it.
                continue
        return lost

    async def _adopt(self, record: ServerRecord, model: Model | None) -> None:
        if model is None:
            await self._serving.discard(record)
            return
        server = await self._serving.adopt(record, model)
        if server is None:
            return
        if not await self._is_taken(server, record):
            await self._serving.let_go(server)
        elif server.by_hand:
            await self._router.set_pinned(model, pinned=True)

    async def _is_taken(self, server: RunningServer, record: ServerRecord) -> bool:
        try:
            return await self._router.take_over(server)
        except BaseException as error:
            if isinstance(error, GglibError) and not isinstance(error, NodeUnreachable):
                return False  # it cannot be served as it is configured now
            # Nobody would own it here: it is for the next look, or the next gateway.
            with anyio.CancelScope(shield=True):
                await self._serving.hand_back(record)
            raise
