"""What memory there is for models, what each of them needs of it, and what servers took."""

from __future__ import annotations

from collections import defaultdict, deque
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
from gglib.domain.memory import DEFAULT_CONTEXT_SIZE, MemoryEstimate
from gglib.domain.memory_fit import MemoryFit
from gglib.domain.memory_observed import MemoryObservation, limited_to
from gglib.domain.model import Model
from gglib.domain.model_run import KEPT_RUNS, ModelRun
from gglib.domain.ownership import ServerRecord
from gglib.errors import ConfigurationError, GglibError, NodeUnreachable
from gglib.ports.clock import Clock
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.process_table import ProcessTable
from gglib.ports.server_registry import ServerRegistry
from gglib.services.far_memory import FarMemory
from gglib.services.machines import Machines, device_of
from gglib.services.memory import correction_from, estimate_server, fit_model
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
        self._formula: dict[tuple[int, str], MemoryEstimate] = {}
        """Of each model and runner, what its estimate was before it was corrected."""
        self._runs: defaultdict[int, deque[ModelRun]] = defaultdict(lambda: deque(maxlen=KEPT_RUNS))
        self._peaks: dict[str, int] = {}
        """The most that a running server was seen to have of the machine's memory, by its id."""

    async def open(self, servers: Collection[RunningServer] = ()) -> None:
        """Measure for the first time, and recall earlier runs.

        Raises:
            ConfigurationError: a limit is set for a device that is not here.
        """
        await self.measure(servers)
        self.check_limits(self._limits)
        for model_id, runs in (await self._catalog.runs()).items():
            self._runs[model_id].extend(runs)

    # Budgets

    def check_limits(self, limits: Mapping[str, int]) -> None:
        """As ``check_limits``, for the devices that were found last."""
        check_limits(limits, self._survey, self._far.devices())

    def set_limits(self, limits: Mapping[str, int]) -> None:
        """Heed other limits from now on. What has one no longer has its budget measured next."""
        self._unlimited |= self._limits.keys() - limits.keys()
        self._limits = dict(limits)
        self.budgets.update({name: size for name, size in limits.items() if name in self.budgets})

    async def measure(
        self,
        servers: Collection[RunningServer],
        *,
        holds: Callable[[], bool] = _always,
        afresh: bool = False,
    ) -> None:
        """Set the budgets by what is free now and what ``servers`` have, which are all of ours.

        Only while none of ours starts or stops: what such a one has is not known. Unless
        that still ``holds`` when everything is read, nothing is changed. The budget
        of the machine's own memory follows what other programs take; that of an accelerator
        is measured while no server is on it, since what one has there is not known either;
        that of another machine's devices likewise, and one that is away keeps its budgets.
        ``afresh``: also with servers on it, which are held to have there what they need.
        Where devices cannot be read, the budgets stay as they are.
        """
        survey = await self._surveyed()
        if survey is None:
            return
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
        unseen = {each.name: each for each in survey.accelerators} | far
        if afresh:
            # What is on them now was not counted as ours; it is by what there is in all.
            for name, device in unseen.items():
                if name not in self._limits:
                    self.budgets[name] = device.total_bytes - _reserve(device)
        ours = {server.server_id for server in servers}
        others = [record for record in records if record.server_id not in ours]
        own = await self._own_bytes(server.handle for server in servers if self._is_here(server))
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
        if survey.cpu is not None:
            there = min(survey.cpu.free_bytes + own, survey.cpu.total_bytes - _reserve(survey.cpu))
            self.budgets[CPU] = max(0, there - claimed)
        for name, device in unseen.items():
            if (
                afresh
                or not on_devices[name]
                or name not in self.budgets
                or name in self._unlimited
            ):
                there = device.free_bytes + on_devices[name]
                self.budgets[name] = min(there, device.total_bytes - _reserve(device))
        self._unlimited -= {CPU, *unseen}
        present = {each.name for each in survey.devices} | far.keys() | self.budgets.keys()
        self.budgets.update({name: self._limits[name] for name in self._limits.keys() & present})

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

    async def _own_bytes(self, handles: Iterable[ProcessHandle]) -> int:
        """Return what the servers of ``handles`` have that comes back when they end."""
        total = 0
        for handle in handles:
            total += await self._look(self._processes.own_memory_bytes, handle) or 0
        return total

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
            for device in elsewhere.devices:
                # It was away when the others were measured.
                name = device_of(runner, device.name)
                there = min(device.free_bytes, device.total_bytes - _reserve(device))
                self.budgets.setdefault(name, self._limits.get(name, there))
            empty = self._far.within(runner, self.budgets)
        fit = await fit_model(model, empty, overrides, files=files)
        if fit.fits:
            # What was seen does not change what is started, nor is anything refused for it that
            # fits by the formula: where there is room, servers keep what they have computed.
            corrected = self._correction(model)(fit.estimate)
            fit = attrs.evolve(fit, estimate=limited_to(corrected, fit.free))
        else:
            correct = self._correction(model)
            fit = await fit_model(model, empty, overrides, correct=correct, files=files)
        self._formula[model.id, runner] = fit.formula
        return fit

    def _known_part(self, runner: str, fit: MemoryFit) -> Mapping[str, int]:
        needs = fit.estimate.needs
        if not self._far.is_here(runner):
            needs = {device_of(runner, name): size for name, size in needs.items()}
        return {name: size for name, size in needs.items() if name in self.budgets}

    def _correction(self, model: Model) -> Callable[[MemoryEstimate], MemoryEstimate]:
        return correction_from(self._runs[model.id])

    # What servers take

    def observed_bytes(self, server: RunningServer) -> int | None:
        """Return the most of the machine's memory that the server was seen to have."""
        return self._peaks.get(server.server_id)

    async def observe(self, server: RunningServer) -> bool:
        """Look what a running server has; return whether its model needs more than was thought."""
        if not self._is_here(server):
            return False
        found = await self._look(self._processes.memory_bytes, server.handle)
        if found is None:
            return False
        before = self._peaks.get(server.server_id, 0)
        self._peaks[server.server_id] = max(before, found)
        formula = self._formula.get((server.model.id, server.record.runner))
        if found <= before or formula is None or formula.source == "stated":
            return False
        if found <= self._correction(server.model)(formula).needs[CPU]:
            return False
        self._runs[server.model.id].append(self._run(formula, found, 0))
        return True

    async def remember(self, server: RunningServer, requests: int) -> None:
        """Keep what is known of a server that has ended: later estimates are better for it.

        Raises:
            GglibError: the catalog cannot be written.
        """
        formula = self._formula.get((server.model.id, server.record.runner))
        peak = self._peaks.pop(server.server_id, None)
        run = self._run(formula, peak, requests)
        self._runs[server.model.id].append(run)
        await self._catalog.add_run(server.model.id, run)

    def _run(
        self, formula: MemoryEstimate | None, observed_bytes: int | None, requests: int
    ) -> ModelRun:
        memory = {}
        if formula is not None and observed_bytes is not None and formula.source != "stated":
            memory[CPU] = MemoryObservation(
                estimated_bytes=max(1, formula.needs[CPU]), observed_bytes=observed_bytes
            )
        return ModelRun(ended_at=self._clock.now(), requests=requests, memory=memory)

    def most_used(self) -> list[int]:
        """Return the models that were used in their remembered runs, the most used first."""
        used = {
            model_id: sum(run.requests for run in runs) for model_id, runs in self._runs.items()
        }
        ranked = sorted(used, key=lambda model_id: (-used[model_id], model_id))
        return [model_id for model_id in ranked if used[model_id]]

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
