"""After a crash, or before a start: what is on record is made to agree with what runs."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import attrs

from gglib.domain.events import AdapterFailed, OrphanLeft, OrphanStopped
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.ownership import Asker, Found, OwnerKind, ServerRecord, Verdict, verdict_for
from gglib.errors import NodeUnreachable, NotRunning
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.ports.server_registry import ServerRegistry

__all__ = ["Reconciliation", "disputed_process", "reconcile"]


@attrs.frozen(kw_only=True)
class Reconciliation:
    """What was done, as server ids."""

    left: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    adoptable: tuple[ServerRecord, ...] = ()
    """Healthy servers that the asking gateway may take over, as ``ServingService.adopt`` does."""
    failed: tuple[str, ...] = ()
    """Orphans that could not be stopped; their rows stay."""
    away: tuple[str, ...] = ()
    """Runners whose machine could not be reached: what is there is still to be decided on."""


async def reconcile(
    registry: ServerRegistry,
    runners: Mapping[str, ProcessRunner],
    *,
    processes: ProcessTable,
    events: EventSink,
    clock: Clock,
    asker: Asker = Asker.OTHER,
) -> Reconciliation:
    """Decide for each server of this machine whether it is left, stopped, or forgotten.

    Servers of living owners, and those meant to run on, are left; orphans are stopped, all
    at once; rows that no process answers to are removed. One that is not surely the server on
    record is left, and told of. Rows of other machines, and of runners that are not here or
    fail, are not touched. Safe beside other processes that start and stop servers meanwhile.
    """
    # Runners first: a server found running had its row before its spawn, so that one without
    # a row afterwards has none.
    work = _Work(registry, events, clock)
    found: dict[tuple[str, str], ProcessHandle] = {}
    sound: dict[str, ProcessRunner] = {}
    for name, runner in runners.items():
        try:
            running = {(name, handle.server_id): handle for handle in await runner.list_running()}
        except Exception as error:
            work.runner_failed(name, error)
            continue
        sound[name] = runner
        found |= running
    records = await registry.list()
    node = processes.identity().node
    async with anyio.create_task_group() as stops:
        for record in records:
            listed = found.pop((record.runner, record.server_id), None)
            answering = sound.get(record.runner)
            if record.owner.node != node or answering is None:
                continue
            try:
                what, process = await _identify(record, answering, listed)
            except Exception as error:
                work.runner_failed(record.runner, error)
                continue
            match _verdict(record, what, processes, asker):
                case Verdict.LEAVE:
                    work.leave(record, process if what is Found.DISPUTED else None)
                case Verdict.ADOPT if process is not None:
                    stops.start_soon(work.offer, answering, attrs.evolve(record, handle=process))
                case Verdict.STOP if process is not None:
                    stops.start_soon(work.stop, answering, process)
                case _:
                    await registry.remove(record.server_id)
                    work.forgotten.append(record.server_id)
        for (name, server_id), handle in found.items():
            if await registry.get(server_id) is None:
                stops.start_soon(work.stop, sound[name], handle)
    return Reconciliation(
        left=tuple(work.left),
        stopped=tuple(work.stopped),
        forgotten=tuple(work.forgotten),
        adoptable=tuple(work.adoptable),
        failed=tuple(work.failed),
        away=tuple(work.away),
    )


async def disputed_process(record: ServerRecord, runner: ProcessRunner) -> ProcessHandle | None:
    """Return what runs under the id of ``record`` and is not surely its server, if anything."""
    running = {handle.server_id: handle for handle in await runner.list_running()}
    found, process = await _identify(record, runner, running.get(record.server_id))
    return process if found is Found.DISPUTED else None


async def _identify(
    record: ServerRecord, runner: ProcessRunner, listed: ProcessHandle | None
) -> tuple[Found, ProcessHandle | None]:
    """Return what runs of the server on record, and by which handle.

    ``listed``: whom the runner lists under its server id.
    """
    known = record.handle
    if known is not None and await runner.is_running(known):
        return Found.SAME, known
    if listed is None:
        return Found.NOTHING, None
    if known is None:
        # Its owner ended between the spawn and the record of it.
        return Found.SAME, listed
    if known.pid == listed.pid and known.process_started_at != listed.process_started_at:
        return Found.DISPUTED, listed
    return Found.REMAINS, listed


def _verdict(record: ServerRecord, found: Found, processes: ProcessTable, asker: Asker) -> Verdict:
    owner = record.owner
    return verdict_for(
        record,
        owner_alive=processes.is_alive(owner.node, owner.pid, owner.process_started_at),
        found=found,
        asker=asker,
    )


class _Work:
    """What one reconciliation does, and did."""

    def __init__(self, registry: ServerRegistry, events: EventSink, clock: Clock) -> None:
        self._registry = registry
        self._events = events
        self._clock = clock
        self.left: list[str] = []
        self.stopped: list[str] = []
        self.forgotten: list[str] = []
        self.adoptable: list[ServerRecord] = []
        self.failed: list[str] = []
        self.away: set[str] = set()

    def runner_failed(self, name: str, error: Exception) -> None:
        """Tell of a runner that does not answer; those of the others are seen to all the same."""
        if isinstance(error, NodeUnreachable):
            self.away.add(name)
        reason = f"{type(error).__name__}: {error}"
        self._events.emit(
            AdapterFailed(
                at=self._clock.now(),
                group="gglib.process_runners",
                adapter_name=name,
                reason=reason,
            )
        )

    def leave(self, record: ServerRecord, disputed: ProcessHandle | None) -> None:
        """Leave a server, and its row; tell of one that is disputed, which nobody looks after."""
        self.left.append(record.server_id)
        if disputed is not None:
            self._events.emit(
                OrphanLeft(
                    at=self._clock.now(),
                    server_id=record.server_id,
                    model_name=record.config.model_name,
                    pid=disputed.pid,
                )
            )

    async def offer(self, runner: ProcessRunner, record: ServerRecord) -> None:
        """Offer a ready server for adoption, if it is healthy; else it is an orphan."""
        assert record.handle is not None
        try:
            health = await runner.health(record.handle)
        except Exception:
            health = ServerHealth.unhealthy("its runner cannot tell")
        if health.is_out_of_reach:
            # It went away meanwhile: nothing is known of the server.
            self.away.add(record.runner)
        elif health.healthy:
            self.adoptable.append(record)
        elif record.owner.kind is OwnerKind.STANDALONE:
            self.left.append(record.server_id)
        else:
            await self.stop(runner, record.handle)

    async def stop(self, runner: ProcessRunner, handle: ProcessHandle) -> None:
        """Stop an orphan and remove its row; one that survives must not save the others."""
        try:
            await runner.stop(handle)
        except NotRunning:
            await self._registry.remove(handle.server_id)
            self.forgotten.append(handle.server_id)
            return
        except NodeUnreachable:
            self.away.add(handle.runner)
            return
        except Exception:
            self.failed.append(handle.server_id)
            return
        await self._registry.remove(handle.server_id)
        self.stopped.append(handle.server_id)
        self._events.emit(
            OrphanStopped(
                at=self._clock.now(),
                server_id=handle.server_id,
                model_name=handle.model_name,
            )
        )
