"""Making the catalog agree with what lies in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from pathlib import Path

import attrs

from gglib.domain.events import Event, ModelAdded, ModelChanged, ModelRemoved
from gglib.domain.file_mark import same_files
from gglib.domain.free_names import FreeNames
from gglib.domain.model import Model, ModelDefaults, ModelOrigin
from gglib.domain.projector import Projector, choose_projector, with_projector, without_projector
from gglib.errors import InvalidModelFile, ModelError, ModelExists, ModelNotFound
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import FolderSurvey, FoundFiles, LocatedModel, ModelSource, PassedOver
from gglib.services.sources import FILES, reference_of

__all__ = ["ScanOutcome", "ScanStep", "scan_folders"]

#: How often another process may take the very name that was chosen.
_ATTEMPTS = 5


class ScanOutcome(StrEnum):
    """What became of a file or folder."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """It is no model, or cannot be read; a row that it had stays."""
    VANISHED = "vanished"
    """A model's file is gone; its row stays."""
    REMOVED = "removed"
    """A model's file is gone, and now its row."""


@attrs.frozen(kw_only=True)
class ScanStep:
    """One file or folder was dealt with: the ``done``-th of ``total``."""

    outcome: ScanOutcome
    path: Path
    model_name: str | None = None
    reason: str | None = None
    done: int
    total: int


async def scan_folders(
    folders: Iterable[str | os.PathLike[str]],
    *,
    sources: ModelSource,
    runner: str | None,
    catalog: ModelCatalog,
    declared: Collection[Model],
    clock: Clock,
    events: EventSink,
    prune: bool,
    on_step: Callable[[ScanStep], None] | None,
) -> list[ScanStep]:
    """See ``ModelService.scan``. Files of ``declared`` models are left to their declarations.

    ``runner``: on whose machine the folders are; ``None``: on this one.
    """
    everything = await catalog.list()
    names = [name for model in (*everything, *declared) for name in (model.name, *model.aliases)]
    rows = [row for row in everything if row.origin.runner == runner]
    if runner is not None:
        declared = [model for model in declared if model.defaults.runner == runner]
    known = {path for model in (*rows, *declared) for path in model.paths}
    surveys = [await sources.survey(os.fspath(folder), known) for folder in folders]
    scan = _Scan(sources, runner, catalog, clock, events, rows, declared, names, on_step)
    await scan.take(_merged(surveys), prune=prune)
    return scan.steps


def _merged(surveys: Iterable[FolderSurvey]) -> FolderSurvey:
    """Return several surveys as one: folders may overlap."""
    models: dict[Path, FoundFiles] = {}
    projectors: dict[Path, Projector] = {}
    passed_over: dict[Path, PassedOver] = {}
    vanished: dict[Path, None] = {}
    for survey in surveys:
        models |= {found.paths[0]: found for found in survey.models}
        projectors |= {projector.path: projector for projector in survey.projectors}
        passed_over |= {each.path: each for each in survey.passed_over}
        vanished |= dict.fromkeys(survey.vanished)
    return FolderSurvey(
        models=tuple(models.values()),
        projectors=tuple(projectors.values()),
        passed_over=tuple(passed_over.values()),
        vanished=tuple(vanished),
    )


class _Scan:
    """One scan, step by step. Each step that changes the catalog is one transaction."""

    def __init__(
        self,
        sources: ModelSource,
        runner: str | None,
        catalog: ModelCatalog,
        clock: Clock,
        events: EventSink,
        rows: Collection[Model],
        declared: Collection[Model],
        names: Collection[str],
        on_step: Callable[[ScanStep], None] | None,
    ) -> None:
        self.steps: list[ScanStep] = []
        self._sources = sources
        self._runner = runner
        self._catalog = catalog
        self._clock = clock
        self._events = events
        self._rows = rows
        self._by_path = {row.path: row for row in rows}
        self._declared = {path: model.name for model in declared for path in model.paths}
        self._names = FreeNames(names)
        self._on_step = on_step
        self._total = 0

    async def take(self, survey: FolderSurvey, *, prune: bool) -> None:
        """Deal with all that was found, then with what was not."""
        gone = frozenset(survey.vanished)
        lost = [row for row in self._rows if gone.intersection(row.paths)]
        self._total = len(survey.models) + len(survey.passed_over) + len(lost)
        beside: dict[Path, list[Projector]] = {}
        for projector in survey.projectors:
            beside.setdefault(projector.path.parent, []).append(projector)
        for found in survey.models:
            await self._take_one(found, beside.get(found.paths[0].parent, ()))
        for each in survey.passed_over:
            self._tell(ScanOutcome.REFUSED, each.path, reason=each.reason)
        for row in lost:
            await self._lose(row, gone, prune=prune)

    async def _take_one(self, found: FoundFiles, projectors: Collection[Projector]) -> None:
        path = found.paths[0]
        if path in self._declared:
            self._tell(ScanOutcome.UNCHANGED, path, self._declared[path])
            return
        row = self._by_path.get(path)
        try:
            if row is None:
                await self._add(found, projectors)
            elif row.paths == found.paths and same_files(row.marks, found.marks):
                projector = choose_projector(path, row.facts, projectors)
                await self._change(row, lambda model: _seeing_by(model, projector))
            else:
                located = await self._read(found)
                projector = choose_projector(path, located.facts, projectors)
                await self._change(row, _with_files(located, projector))
        except ModelNotFound:
            # Another process has removed it meanwhile, and meant it.
            self._tell(ScanOutcome.UNCHANGED, path)
        except ModelError as error:
            reason = error.reason if isinstance(error, InvalidModelFile) else str(error)
            self._tell(ScanOutcome.REFUSED, path, None if row is None else row.name, reason)

    async def _read(self, found: FoundFiles) -> LocatedModel:
        located = await self._sources.locate(reference_of(found.paths[0]))
        if located.marks and not same_files(located.marks, found.marks):
            raise InvalidModelFile(
                found.paths[0], "it changed during the scan; scan again when it is complete"
            )
        return located

    async def _add(self, found: FoundFiles, projectors: Collection[Projector]) -> None:
        located = await self._read(found)
        path = located.paths[0]
        projector = choose_projector(path, located.facts, projectors)
        model = Model(
            id=0,
            name=self._names.choose(located.suggested_name, _name_of_folder(path)),
            paths=located.paths,
            size_bytes=located.size_bytes,
            facts=located.facts,
            origin=ModelOrigin(kind=FILES, runner=self._runner),
            defaults=ModelDefaults(runner=self._runner),
            added_at=self._clock.now(),
        )
        model = _with_files(located, projector)(model)
        for attempt in range(_ATTEMPTS):
            try:
                model = await self._catalog.add(model)
                break
            except ModelExists:
                if attempt == _ATTEMPTS - 1:
                    raise
                again = self._names.choose(located.suggested_name, _name_of_folder(path))
                model = attrs.evolve(model, name=again)
        self._emit(ModelAdded(at=self._clock.now(), model_id=model.id, model_name=model.name))
        self._tell(ScanOutcome.ADDED, path, model.name)

    async def _change(self, row: Model, change: Callable[[Model], Model]) -> None:
        if change(row) == row:
            self._tell(ScanOutcome.UNCHANGED, row.path, row.name)
            return
        model = await self._catalog.edit(row.id, change)
        self._emit(ModelChanged(at=self._clock.now(), model_id=model.id, model_name=model.name))
        self._tell(ScanOutcome.CHANGED, model.path, model.name)

    async def _lose(self, row: Model, gone: Collection[Path], *, prune: bool) -> None:
        lost = next(path for path in row.paths if path in gone)
        if not prune:
            self._tell(ScanOutcome.VANISHED, lost, row.name, "no such file")
            return
        try:
            await self._catalog.remove(row.id)
        except ModelNotFound:
            return
        self._emit(ModelRemoved(at=self._clock.now(), model_id=row.id, model_name=row.name))
        self._tell(ScanOutcome.REMOVED, lost, row.name, "no such file")

    def _emit(self, event: Event) -> None:
        self._events.emit(event)

    def _tell(
        self, outcome: ScanOutcome, path: Path, name: str | None = None, reason: str | None = None
    ) -> None:
        step = ScanStep(
            outcome=outcome,
            path=path,
            model_name=name,
            reason=reason,
            done=len(self.steps) + 1,
            total=self._total,
        )
        self.steps.append(step)
        if self._on_step is not None:
            self._on_step(step)


def _seeing_by(model: Model, projector: Projector | None) -> Model:
    """Return the model with the projector that lies beside it now, or none."""
    path = None if projector is None else projector.path
    if path == model.mmproj_path:
        return model
    facts = with_projector(without_projector(model.facts), projector)
    return attrs.evolve(model, mmproj_path=path, facts=facts)


def _with_files(located: LocatedModel, projector: Projector | None) -> Callable[[Model], Model]:
    def change(model: Model) -> Model:
        return attrs.evolve(
            model,
            paths=located.paths,
            size_bytes=located.size_bytes,
            marks=located.marks,
            mmproj_path=None if projector is None else projector.path,
            facts=with_projector(located.facts, projector),
        )

    return change


def _name_of_folder(path: Path) -> str:
    """Return the folder's name as far as a model's may have it."""
    name = "".join(letter for letter in path.parent.name if letter.isprintable())
    return name.replace("..", ".").replace("\\", "-").strip(" -./")
