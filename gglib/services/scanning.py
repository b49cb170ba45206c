"""Making the catalog agree with what lies in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from gglib.domain.file_mark import same_files
from gglib.domain.model import Model, ModelDefaults, ModelOrigin
from gglib.domain.projector import Projector, choose_projector
from gglib.errors import ModelError
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import FolderSurvey, FoundFiles, ModelSource, PassedOver
from gglib.services.catalog_steps import (
    CatalogSteps,
    ScanOutcome,
    ScanStep,
    names_of,
    seeing_by,
    with_files,
)
from gglib.services.sources import FILES

__all__ = ["scan_folders"]


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
    names = names_of((*everything, *declared))
    rows = [row for row in everything if row.origin.runner == runner]
    if runner is not None:
        declared = [model for model in declared if runner in model.defaults.runners]
    known = {path for model in (*rows, *declared) for path in model.paths}
    surveys = [await sources.survey(os.fspath(folder), known) for folder in folders]
    scan = _Scan(sources, catalog, clock, events, rows, declared, names, on_step, runner=runner)
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


class _Scan(CatalogSteps):
    """One scan, step by step."""

    async def take(self, survey: FolderSurvey, *, prune: bool) -> None:
        """Deal with all that was found, then with what was not."""
        gone = frozenset(survey.vanished)
        lost = [row for row in self._rows if gone.intersection(row.paths)]
        self._total = len(survey.models) + len(survey.passed_over) + len(lost)
        beside: dict[Path, list[Projector]] = {}
        for projector in survey.projectors:
            beside.setdefault(projector.path.parent, []).append(projector)
        by_path = {row.path: row for row in self._rows}
        for found in survey.models:
            path = found.paths[0]
            await self._take_one(found, by_path.get(path), beside.get(path.parent, ()))
        for each in survey.passed_over:
            self._tell(ScanOutcome.REFUSED, each.path, reason=each.reason)
        for row in lost:
            await self._lose(row, gone, prune=prune)

    async def _take_one(
        self, found: FoundFiles, row: Model | None, projectors: Collection[Projector]
    ) -> None:
        path = found.paths[0]
        if path in self._declared:
            self._tell(ScanOutcome.UNCHANGED, path, self._declared[path])
            return
        try:
            if row is None:
                await self._add_found(found, projectors)
            elif row.paths == found.paths and same_files(row.marks, found.marks):
                projector = choose_projector(path, row.facts, projectors)
                await self._change(row, lambda model: seeing_by(model, projector))
            else:
                located = await self._read(found)
                projector = choose_projector(path, located.facts, projectors)
                await self._change(row, with_files(located, projector))
        except ModelError as error:
            self._refuse(path, row, error)

    async def _add_found(self, found: FoundFiles, projectors: Collection[Projector]) -> None:
        located = await self._read(found)
        path = located.paths[0]
        model = Model(
            id=0,
            name=located.suggested_name,
            paths=located.paths,
            size_bytes=located.size_bytes,
            origin=ModelOrigin(kind=FILES, runner=self._runner),
            defaults=ModelDefaults(runner=self._runner),
            added_at=self._clock.now(),
        )
        change = with_files(located, choose_projector(path, located.facts, projectors))
        await self._add(change(model), _name_of_folder(path), located.suggested_name)


def _name_of_folder(path: Path) -> str:
    """Return the folder's name as far as a model's may have it."""
    name = "".join(letter for letter in path.parent.name if letter.isprintable())
    return name.replace("..", ".").replace("\\", "-").strip(" -./")
