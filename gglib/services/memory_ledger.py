"""What memory there is for models, what each of them needs of it, and what servers took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import anyio
import anyio.to_thread
import attrs

from gglib.domain.device import CPU, Device, DeviceSurvey
from gglib.domain.events import AdapterFailed
from gglib.domain.handle import ProcessHandle
from gglib.domain.kv_cache import known
from gglib.domain.memory import DEFAULT_CONTEXT_SIZE
from gglib.domain.memory_fit import MemoryFit
from gglib.domain.memory_observed import limited_to
from gglib.domain.model import Model
from gglib.domain.ownership import ServerRecord
from gglib.domain.server_memory import ServerMemory
from gglib.errors import ConfigurationError, GglibError, NodeUnreachable
from gglib.ports.clock import Clock
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.process_table import ProcessTable
from gglib.ports.server_registry import ServerRegistry
from gglib.services.far_memory import FarMemory
from gglib.services.machines import Machines
from gglib.services.memory import estimate_server, fit_model
from gglib.services.memory_runs import MemoryRuns
from gglib.services.models import ModelService
from gglib.services.routing.terms import Spot
from gglib.services.serving import RunningServer

__all__ = ["MemoryLedger", "check_limits"]

#: What is left to everybody else of the machine's own memory: a twentieth, at most 1 GiB.
_RESERVE_DIVISOR = 20
_MOST_RESERVE_BYTES = 2**30
_NOTHING: Mapping[str, int] = MappingProxyType({})
#: How long devices may take to be read; those of this machine keep to less by themselves.
_SURVEY_TIMEOUT_S = 30.0


def _always() -> bool:
    return True


def _reserve(device: Device) -> int:
    """Return what of a machine's own memory is left to others."""
    if device.kind != CPU:
        return 0
    return min(device.total_bytes // _RESERVE_DIVISOR, _MOST_RESERVE_BYTES)


def _budget(device: Device, held_bytes: int) -> int:
    """Return what models may have of a device of which servers have ``held_bytes`` now."""
    return min(device.free_bytes + held_bytes, device.total_bytes - _reserve(device))


def check_limits(
    limits: Mapping[str, int],
    survey: DeviceSurvey,
    elsewhere: Mapping[str, Sequence[str] | None] = MappingProxyType({}),
) -> None:
    """Return if every one of ``limits`` is for a device of ``survey`` or ``elsewhere``.

    ``elsewhere``: by runner, the names of the devices of its machine; ``None`` = not known, so
    that any is right.

    Raises:
        ConfigurationError: one is not.
    """
    names = [device.name for device in survey.devices]
    for name in limits:
        runner = name.partition("/")[0]
        if runner != name and runner in elsewhere:
            there = elsewhere[runner]
            if there is None or name in there:
                continue
            raise ConfigurationError(
                f"[routing.budgets] {name}: there is no such device; the machine of runner "
                f"'{runner}' has {', '.join(there) or 'none that is held to a budget'}"
            )
        if name not in names:
            known = ", ".join(names) or "no device that can be read"
            raise ConfigurationError(
                f"[routing.budgets] {name}: there is no such device; this machine has {known}"
            )


class MemoryLedger:
    """Budgets and needs, in bytes by device.

    ``budgets`` is what models may need together. It changes with every ``measure``; whoever
    plans reads it anew each time.
    """

    def __init__(
        self,
        *,
        devices: DeviceInventory,
        processes: ProcessTable,
        catalog: ModelCatalog,
        models: ModelService,
        registry: ServerRegistry,
        machines: Machines,
        clock: Clock,
        events: EventSink,
        limits: Mapping[str, int] = _NOTHING,
    ) -> None:
        """``limits``: budgets that a person has set, by device."""
        self.budgets: dict[str, int] = {}
        self._devices = devices
        self._processes = processes
        self._catalog = catalog
        self._models = models
        self._registry = registry
        self._machines = machines
        self._far = FarMemory(machines, clock=clock, events=events)
        self._clock = clock
        self._events = events
        self._trouble: str | None = None
        """Why devices could not be read, if that was so the last time."""
        self._limits = dict(limits)
        self._unlimited: set[str] = set()
        """Devices that had a limit, and were not measured since."""
        self._survey = DeviceSurvey()
        self._runs = MemoryRuns()

    async def open(self, servers: Collection[RunningServer] = ()) -> None:
        """Measure for the first time, and recall earlier runs.

        Raises:
            ConfigurationError: a limit is set for a device that is not here.
        """
        await self.measure(servers)
        self.check_limits(self._limits)
        self._runs.recall(await self._catalog.runs())

    # Budgets

    def check_limits(self, limits: Mapping[str, int]) -> None:
        """As ``check_limits``, for the devices that were found last."""
        check_limits(limits, self._survey, self._far.devices())

    def set_limits(self, limits: Mapping[str, int]) -> None:
        """Heed other limits from now on. What has one no longer has its budget measured next."""
        before = self._limits_by_device().keys()
        self._limits = dict(limits)
        now = self._limits_by_device()
        self._unlimited |= before - now.keys()
        self.budgets.update({name: size for name, size in now.items() if name in self.budgets})

    def _limits_by_device(self) -> dict[str, int]:
        """Return the limits by the one name of each device; of several for one, the least."""
        found: dict[str, int] = {}
        for name, size in self._limits.items():
            device = self._far.name(name)
            found[device] = min(size, found.get(device, size))
        return found

    async def measure(
        self,
        servers: Collection[RunningServer],
        *,
        holds: Callable[[], bool] = _always,
        afresh: bool = False,
    ) -> None:
        """Set the budgets by what is free now and what ``servers`` have, which are all of ours.

        Only while none of ours starts or stops: what such a one has is not known. Unless
        that still ``holds`` when everything is read, nothing is changed. The budget of a
        machine's own memory follows what other programs take, where it is told what servers
        have of it; else, and that of an accelerator, it is measured while no server is on it.
        A machine that is away keeps its budgets.
        ``afresh``: also with servers on it, which are held to have there what they need.
        Where devices cannot be read, the budgets stay as they are.
        """
        survey = await self._surveyed()
        if survey is None:
            return
        self._far.here = survey
        records = await self._registry.list()
        far = await self._far.look(
            [
                *(
                    name
                    for model in await self._models.list()
                    for name in self._machines.names_for(model)
                ),
                *(server.record.runner for server in servers),
                *(record.runner for record in records),
            ]
        )
        limits = self._limits_by_device()
        unseen = {each.name: each for each in survey.accelerators} | far
        if afresh:
            # What is on them now was not counted as ours; it is by what there is in all.
            for name, device in unseen.items():
                if name not in limits:
                    self.budgets[name] = device.total_bytes - _reserve(device)
        ours = {server.server_id for server in servers}
        others = [record for record in records if record.server_id not in ours]
        own, untold = await self._own_bytes(servers)
        claimed = await self._claimed_by(others)
        on_devices: defaultdict[str, int] = defaultdict(int)
        for server in servers:
            with suppress(NodeUnreachable):  # then its devices are not measured either
                held = await self.needs(
                    server.model,
                    server.record.config.context_size,
                    runner=server.record.runner,
                )
                for name, needed in held.items():
                    on_devices[name] += needed
        if not holds():
            return
        self._survey = survey
        if survey.cpu is not None and (CPU not in untold or CPU not in self.budgets):
            self.budgets[CPU] = max(0, _budget(survey.cpu, own[CPU]) - claimed)
        for name, device in unseen.items():
            if device.kind == CPU and name not in untold:
                self.budgets[name] = _budget(device, own[name])
            elif (
                afresh
                or not on_devices[name]
                or name not in self.budgets
                or name in self._unlimited
            ):
                self.budgets[name] = _budget(device, on_devices[name])
        self._unlimited -= {CPU, *unseen}
        present = {each.name for each in survey.devices} | far.keys() | self.budgets.keys()
        self.budgets.update({name: limits[name] for name in limits.keys() & present})

    async def make_room_on(self, runner: str) -> None:
        """Have servers fit on a runner's machine that run there already, and are ours from now on.

        What they have is not free there. Until the next measurement, which follows though they
        are there, each device that has no limit has all that there is.
        """
        limits = self._limits_by_device()
        for name, device in (await self._far.look([runner])).items():
            if name not in limits:
                self.budgets[name] = device.total_bytes - _reserve(device)
                self._unlimited.add(name)

    async def _surveyed(self) -> DeviceSurvey | None:
        """Return what the devices have now; ``None`` if a stranger's inventory cannot tell."""
        survey, trouble = None, f"it has not answered for {_SURVEY_TIMEOUT_S:g} s"
        try:
            with anyio.move_on_after(_SURVEY_TIMEOUT_S):
                survey = await self._devices.survey()
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        if survey is not None:
            self._trouble = None
        elif self._trouble != trouble:
            # Told once, not at every look.
            self._trouble = trouble
            self._events.emit(
                AdapterFailed(
                    at=self._clock.now(),
                    group="gglib.device_inventories",
                    adapter_name=type(self._devices).__name__,
                    reason=trouble,
                )
            )
        return survey

    async def _own_bytes(
        self, servers: Iterable[RunningServer]
    ) -> tuple[Mapping[str, int], Collection[str]]:
        """Return what servers have of machines' own memory that comes back when they end.

        By device; and on which of those there are servers elsewhere of which it is not told.
        """
        own: defaultdict[str, int] = defaultdict(int)
        untold: set[str] = set()

        async def ask(server: RunningServer, device: str) -> None:
            told = await self._memory_elsewhere(server)
            if told is None:
                untold.add(device)
            else:
                own[device] += told.own_bytes

        async with anyio.create_task_group() as questions:
            for server in servers:
                if self._is_here(server):
                    found = await self._look(self._processes.own_memory_bytes, server.handle)
                    own[CPU] += found or 0
                elif (device := self._far.names(server.record.runner).get(CPU)) is not None:
                    questions.start_soon(ask, server, device)
        return own, untold

    async def _memory_elsewhere(self, server: RunningServer) -> ServerMemory | None:
        return await self._machines.memory(server.record.runner, server.handle)

    async def _claimed_by(self, records: Collection[ServerRecord]) -> int:
        """Return what servers that are not ours will need beyond what they have taken by now."""
        models = {model.id: model for model in await self._models.list()} if records else {}
        total = 0
        for record in records:
            handle, model = record.handle, models.get(record.config.model_id)
            if handle is None or model is None or not self._runs_here(record.runner, handle):
                continue
            taken = await self._look(self._processes.own_memory_bytes, handle)
            if taken is None:
                continue
            try:
                estimate = await estimate_server(model, record.config, self._survey)
            except GglibError:
                continue
            total += max(0, estimate.needs.get(CPU, 0) - taken)
        return total

    # Needs

    async def place(self, model: Model, runner: str | None = None) -> Spot:
        """Return what a server of ``model`` needs on a runner, and with which context it starts.

        As many layers go to accelerators as an empty machine has room for, unless the model
        says how many; and where its own context is too large for that machine, unless it says
        which, the context is the largest that is not. Corrected by what earlier servers took,
        and those that run now. On another machine it is that one's devices that count, named
        with its runner before them: ``box/cuda0``.

        Raises:
            NodeUnreachable: it is to run on a machine of which nothing is known, and which
                cannot be reached.
            ModelFileMissing: the projector's or an adapter's file is not there.
        """
        runner = runner or self._machines.names_for(model)[0]
        fit = await self._fit(model, runner, {})
        if fit is None:
            return Spot(runner=runner)
        context_size = None if fit.full_context is None else fit.estimate.context_size
        memory = self._known_part(runner, fit)
        return Spot(runner=runner, memory=memory, context_size=context_size)

    async def needs(
        self, model: Model, context_size: int | None = None, *, runner: str | None = None
    ) -> Mapping[str, int]:
        """Return what a server of ``model`` needs that has that context (``None``: the model's).

        ``runner``: where it runs; ``None``: on the model's first one.

        Raises:
            NodeUnreachable, ModelFileMissing: as ``place``.
        """
        runner = runner or self._machines.names_for(model)[0]
        if context_size is None:
            model = await self._machines.as_it_lies(model, runner)
            context_size = model.defaults.server.get("context_size") or known(
                model.facts.context_length, DEFAULT_CONTEXT_SIZE
            )
        fit = await self._fit(model, runner, {"context_size": context_size})
        return _NOTHING if fit is None else self._known_part(runner, fit)

    async def _fit(
        self, model: Model, runner: str, overrides: Mapping[str, Any]
    ) -> MemoryFit | None:
        files = None
        elsewhere = await self._far.of(runner)
        if elsewhere is None:
            empty = DeviceSurvey(
                devices=[
                    attrs.evolve(device, free_bytes=min(budget, device.total_bytes))
                    for device in self._survey.devices
                    if (budget := self.budgets.get(device.name)) is not None
                ]
            )
        elif not elsewhere.devices:
            # Somebody else sees to the memory there.
            return None
        else:
            files = self._machines.files(runner)
            model = await self._machines.as_it_lies(model, runner)
            names, limits = self._far.names(runner), self._limits_by_device()
            for device in elsewhere.devices:
                # It was away when the others were measured.
                name = names[device.name]
                self.budgets.setdefault(name, limits.get(name, _budget(device, 0)))
            empty = self._far.within(runner, self.budgets)
        fit = await fit_model(model, empty, overrides, files=files)
        if fit.fits:
            # What was seen does not change what is started, nor is anything refused for it that
            # fits by the formula: where there is room, servers keep what they have computed.
            corrected = self._runs.correction(model.id)(fit.estimate)
            fit = attrs.evolve(fit, estimate=limited_to(corrected, fit.free))
        else:
            correct = self._runs.correction(model.id)
            fit = await fit_model(model, empty, overrides, correct=correct, files=files)
        self._runs.estimated(model.id, runner, fit.formula)
        return fit

    def _known_part(self, runner: str, fit: MemoryFit) -> Mapping[str, int]:
        names = self._far.names(runner)
        needs = {names.get(name, name): size for name, size in fit.estimate.needs.items()}
        return {name: size for name, size in needs.items() if name in self.budgets}

    # What servers take

    def observed_bytes(self, server: RunningServer) -> int | None:
        """Return the most of its machine's own memory that the server was seen to have."""
        return self._runs.peak(server.server_id)

    async def observe(self, server: RunningServer) -> bool:
        """Look what a running server has; return whether its model needs more than was thought."""
        if self._is_here(server):
            resident = await self._look(self._processes.memory_bytes, server.handle)
            found = {} if resident is None else {CPU: resident}
        else:
            told = await self._memory_elsewhere(server)
            found = {} if told is None else {CPU: told.resident_bytes, **told.accelerators}
        if not found:
            return False
        return self._runs.see(server, found, self._clock.now())

    async def remember(self, server: RunningServer, requests: int) -> None:
        """Keep what is known of a server that has ended: later estimates are better for it.

        Raises:
            GglibError: the catalog cannot be written.
        """
        run = self._runs.end(server, requests, self._clock.now())
        await self._catalog.add_run(server.model.id, run)

    def most_used(self) -> list[int]:
        """Return the models that were used in their remembered runs, the most used first."""
        return self._runs.most_used()

    # Who is here

    def _is_here(self, server: RunningServer) -> bool:
        return self._runs_here(server.record.runner, server.handle)

    def _runs_here(self, runner_name: str, handle: ProcessHandle) -> bool:
        return (
            self._far.is_here(runner_name)
            and handle.pid is not None
            and handle.node == self._processes.identity().node
        )

    async def _look(self, what: Callable[[int], int | None], handle: ProcessHandle) -> int | None:
        assert handle.pid is not None
        return await anyio.to_thread.run_sync(what, handle.pid)
