"""The scheduler's driver: its actions become tasks, its grants become leases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from copy import copy
from itertools import count

import anyio
import attrs
from anyio.abc import TaskGroup

from gglib.domain.model import Model
from gglib.errors import GglibError, StartFailed
from gglib.services.routing.scheduler import (
    Action,
    Grant,
    Reject,
    ResidentPhase,
    Scheduler,
    Start,
    Stop,
)
from gglib.services.serving import RunningServer, ServingService

__all__ = ["Lease", "ResidentView", "Router", "open_router"]

#: How long an engine that dropped a connection may take to be seen dead.
_DEATH_NOTICE_S = 0.25


class Lease:
    """The right to send one request to a ready server. End it with ``release``."""

    __slots__ = ("_router", "_ticket", "server")

    def __init__(self, router: Router, ticket: int, server: RunningServer) -> None:
        self._router: Router | None = router
        self._ticket = ticket
        self.server = server

    def release(self) -> None:
        """End the lease; a second call does nothing."""
        router, self._router = self._router, None
        if router is not None:
            router.finish(self._ticket)


@attrs.define
class _Waiter:
    event: anyio.Event
    outcome: RunningServer | GglibError | None = None


@attrs.define
class _Slot:
    """What the driver holds for the resident: its server, and the scope of its start."""

    model: Model
    scope: anyio.CancelScope
    server: RunningServer | None = None
    stop_asked: bool = False
    death_noted: bool = False
    ended: anyio.Event = attrs.Factory(anyio.Event)


@attrs.frozen(kw_only=True)
class ResidentView:
    """One resident, as ``ps`` and ``/running`` show it."""

    model: Model
    phase: ResidentPhase
    in_flight: int
    queued: int
    server: RunningServer | None


class Router:
    """Turns requests for models into leases on ready servers.

    Runs in one event loop. ``try_lease`` and ``release`` never wait, so that the path of a
    request to a ready server awaits nothing but the network.
    """

    def __init__(
        self, serving: ServingService, *, queue_limit: int = 256, task_group: TaskGroup
    ) -> None:
        self._serving = serving
        self._scheduler = Scheduler(queue_limit=queue_limit)
        self._tasks = task_group
        self._tickets = count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._models: dict[int, Model] = {}
        self._slot: _Slot | None = None
        self._idle = anyio.Event()
        self._gone_callbacks: list[Callable[[RunningServer], None]] = []

    # Leases

    def try_lease(self, model: Model) -> Lease | None:
        """Return a lease if the model's server is ready and nobody is ahead; never waits."""
        slot = self._slot
        if slot is None or slot.server is None:
            return None
        ticket = next(self._tickets)
        if not self._scheduler.try_grant(ticket, model.id, model.defaults.concurrency_limit):
            return None
        return Lease(self, ticket, slot.server)

    async def acquire(self, model: Model) -> Lease:
        """Return a lease, as soon as it is this request's turn; starts the model if need be.

        Cancelling forgets the request at once.

        Raises:
            QueueFull, ShuttingDown, Unloaded: it was not let in, or thrown out.
            GglibError: the start that it waited for failed, and why.
        """
        ticket = next(self._tickets)
        waiter = self._waiters[ticket] = _Waiter(anyio.Event())
        self._models[model.id] = model
        self._carry_out(
            self._scheduler.request_arrived(
                ticket, model.id, model.name, limit=model.defaults.concurrency_limit
            )
        )
        try:
            await waiter.event.wait()
        except BaseException:
            if not isinstance(waiter.outcome, GglibError):
                self._carry_out(self._scheduler.request_gone(ticket))
            raise
        finally:
            del self._waiters[ticket]
        assert waiter.outcome is not None
        if not isinstance(waiter.outcome, GglibError):
            return Lease(self, ticket, waiter.outcome)
        # One failed start is told to many waiters: each raises an error of its own.
        raise copy(waiter.outcome)

    @asynccontextmanager
    async def lease(self, model: Model) -> AsyncIterator[Lease]:
        """Hold a lease for the block."""
        lease = await self.acquire(model)
        try:
            yield lease
        finally:
            lease.release()

    def finish(self, ticket: int) -> None:
        """Count a granted request as done (``Lease.release`` calls this)."""
        if actions := self._scheduler.request_finished(ticket):
            self._carry_out(actions)

    async def is_gone(self, server: RunningServer) -> bool:
        """Whether a server that dropped a connection has died; waits a moment to be sure.

        When it has, the next lease is on another one.
        """
        with anyio.move_on_after(_DEATH_NOTICE_S):
            await self._serving.wait_gone(server)
            self._note_death(server)
            return True
        return False

    # Residents

    def residents(self) -> list[ResidentView]:
        """Return what is in memory, on its way there, or on its way out."""
        resident, slot = self._scheduler.resident, self._slot
        if resident is None or slot is None:
            return []
        return [
            ResidentView(
                model=slot.model,
                phase=resident.phase,
                in_flight=len(resident.in_flight),
                queued=self._scheduler.queued(resident.model_id),
                server=slot.server,
            )
        ]

    def unload(self, model: Model, *, cut: bool = False) -> bool:
        """Let the model go when nothing is in flight (``cut``: at once).

        Returns whether it was resident. Does not wait for its end.
        """
        resident = self._scheduler.resident
        was_resident = resident is not None and resident.model_id == model.id
        if was_resident and cut and self._slot is not None:
            self._announce_gone(self._slot)
        self._carry_out(self._scheduler.unload(model.id, cut=cut))
        return was_resident

    async def wait_unloaded(self, model: Model) -> None:
        """Return when the model's present server, if any, is gone."""
        slot = self._slot
        if slot is not None and slot.model.id == model.id:
            await slot.ended.wait()

    def on_server_gone(self, callback: Callable[[RunningServer], None]) -> None:
        """Have ``callback(server)`` called when a server stops or dies; it must not raise."""
        self._gone_callbacks.append(callback)

    # Shutdown

    def begin_shutdown(self) -> None:
        """Accept nothing more; whoever waits gets ``ShuttingDown``. What is in flight goes on."""
        self._carry_out(self._scheduler.shutdown())

    async def close(self) -> None:
        """Stop everything now and return when it is gone."""
        self.begin_shutdown()
        resident = self._scheduler.resident
        if resident is not None:
            self._carry_out(self._scheduler.unload(resident.model_id, cut=True))
        while not self._scheduler.is_idle:
            self._idle = anyio.Event()
            await self._idle.wait()

    # Actions

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Grant(ticket=ticket):
                    self._grant(ticket)
                case Reject(ticket=ticket, error=error):
                    self._settle(ticket, error)
                case Start(model_id=model_id):
                    slot = _Slot(self._models[model_id], anyio.CancelScope())
                    self._slot = slot
                    self._tasks.start_soon(self._run, slot)
                case Stop():
                    self._stop()
        if self._scheduler.is_idle:
            self._idle.set()

    def _grant(self, ticket: int) -> None:
        assert self._slot is not None
        assert self._slot.server is not None
        self._settle(ticket, self._slot.server)

    def _settle(self, ticket: int, outcome: RunningServer | GglibError) -> None:
        waiter = self._waiters[ticket]
        waiter.outcome = outcome
        waiter.event.set()

    def _stop(self) -> None:
        assert self._slot is not None
        self._slot.stop_asked = True
        self._slot.scope.cancel()

    async def _run(self, slot: _Slot) -> None:
        """Own one server, from its start to its end: this task is the only one that ends it."""
        model_id = slot.model.id
        error: GglibError | None = None
        with slot.scope:
            try:
                slot.server = await self._serving.start(slot.model)
            except GglibError as failure:
                error = failure
            except Exception as failure:  # an adapter's bug must not take the gateway down
                error = StartFailed(
                    slot.model.name, None, (), f"{type(failure).__name__}: {failure}"
                )
            else:
                self._carry_out(self._scheduler.server_ready(model_id))
                await self._serving.wait_gone(slot.server)
        await self._end(slot, error)

    async def _end(self, slot: _Slot, error: GglibError | None) -> None:
        model_id = slot.model.id
        self._announce_gone(slot)
        if slot.server is not None:
            with anyio.CancelScope(shield=True):
                # One that survives SIGKILL keeps its row in the registry, and doctor shows it.
                with suppress(GglibError):
                    await self._serving.stop(slot.server)
        slot.ended.set()
        if slot.death_noted:
            return
        self._slot = None
        if slot.stop_asked:
            self._carry_out(self._scheduler.server_stopped(model_id))
        elif error is not None:
            self._carry_out(self._scheduler.server_failed(model_id, error))
        else:
            self._carry_out(self._scheduler.server_died(model_id))

    def _note_death(self, server: RunningServer) -> None:
        """Take note of a death before the task that owns the server has seen it."""
        slot = self._slot
        if slot is None or slot.server is not server or slot.stop_asked:
            return
        slot.death_noted = True
        self._slot = None
        self._carry_out(self._scheduler.server_died(slot.model.id))

    def _announce_gone(self, slot: _Slot) -> None:
        if slot.server is not None:
            for callback in self._gone_callbacks:
                callback(slot.server)


@asynccontextmanager
async def open_router(serving: ServingService, *, queue_limit: int = 256) -> AsyncIterator[Router]:
    """Run a router for the block; at its end every server it started is stopped."""
    async with anyio.create_task_group() as tasks:
        router = Router(serving, queue_limit=queue_limit, task_group=tasks)
        try:
            yield router
        finally:
            with anyio.CancelScope(shield=True):
                await router.close()
