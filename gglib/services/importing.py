"""Making the catalog agree with what another tool keeps: by reference, nothing is copied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import attrs

from gglib.domain.file_mark import same_files
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Model, ModelDefaults, ModelOrigin
from gglib.domain.projector import Projector, choose_projector
from gglib.errors import ModelError
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_store import ModelStore, StoredModel, StoreSurvey
from gglib.services.catalog_steps import (
    CatalogSteps,
    ScanOutcome,
    ScanStep,
    names_of,
    seeing_by,
    with_files,
)
from gglib.services.sources import ModelSources

__all__ = ["import_models"]


async def import_models(
    kind: str,
    store: ModelStore,
    folder: Path | None,
    *,
    sources: ModelSources,
    catalog: ModelCatalog,
    declared: Collection[Model],
    clock: Clock,
    events: EventSink,
    prune: bool,
    on_step: Callable[[ScanStep], None] | None,
) -> list[ScanStep]:
    """See ``ModelService.import_models``. ``kind``: the origin of the models of that store."""
    everything = await catalog.list()
    names = names_of((*everything, *declared))
    # What lies on other machines is not here, though its path may be.
    rows = [row for row in everything if row.origin.runner is None]
    known = {path for model in (*rows, *declared) for path in model.paths}
    survey = await store.survey(folder, known)
    steps = _Import(sources, catalog, clock, events, rows, declared, names, on_step)
    await steps.take(kind, survey, prune=prune)
    return steps.steps


class _Import(CatalogSteps):
    """One import, step by step."""

    async def take(self, kind: str, survey: StoreSurvey, *, prune: bool) -> None:
        """Deal with all that was found, then with what was not."""
        rows = [
            row
            for row in self._rows
            if row.origin.kind == kind and row.path.is_relative_to(survey.folder)
        ]
        others = {row.path: row for row in self._rows if row.origin.kind != kind}
        theirs = _matched(survey.models, rows)
        gone = frozenset(survey.vanished)
        taken = {row.id for row in theirs.values()}
        lost = [row for row in rows if row.id not in taken and gone.intersection(row.paths)]
        self._total = len(survey.models) + len(survey.passed_over) + len(lost)
        for number, stored in enumerate(survey.models):
            path = stored.files.paths[0]
            row = theirs.get(number)
            if path in self._declared:
                self._tell(ScanOutcome.UNCHANGED, path, self._declared[path])
            elif row is None and path in others:
                # It was added by hand, scanned or fetched: it stays what it is.
                self._tell(ScanOutcome.UNCHANGED, path, others[path].name)
            else:
                await self._take_one(kind, stored, row, survey.projectors)
        for each in survey.passed_over:
            self._tell(ScanOutcome.REFUSED, each.path, reason=each.reason)
        for row in lost:
            await self._lose(row, gone, prune=prune)

    async def _take_one(
        self,
        kind: str,
        stored: StoredModel,
        row: Model | None,
        projectors: Collection[Projector],
    ) -> None:
        try:
            if row is None:
                await self._add_stored(kind, stored, projectors)
            else:
                await self._take_up(kind, stored, row, projectors)
        except ModelError as error:
            self._refuse(stored.files.paths[0], row, error)

    async def _add_stored(
        self, kind: str, stored: StoredModel, projectors: Collection[Projector]
    ) -> None:
        located = await self._read(stored.files)
        wanted, *others = stored.names or (located.suggested_name,)
        free = tuple(name for name in others if self._names.take(name))
        model = Model(
            id=0,
            name=wanted,
            paths=located.paths,
            size_bytes=located.size_bytes,
            aliases=free,
            defaults=stored.defaults,
            origin=_origin(kind, stored),
            added_at=self._clock.now(),
        )
        projector = stored.projector or choose_projector(model.path, located.facts, projectors)
        taken = tuple(f"name {name}: it is taken" for name in others if name not in free)
        model = with_files(located, projector)(model)
        await self._add(model, stored.qualifier, wanted, stored.left_out + taken)

    async def _take_up(
        self, kind: str, stored: StoredModel, row: Model, projectors: Collection[Projector]
    ) -> None:
        files = stored.files
        located = None
        if row.paths != files.paths or not same_files(row.marks, files.marks):
            located = await self._read(files)
        facts = row.facts if located is None else located.facts
        projector = stored.projector or choose_projector(files.paths[0], facts, projectors)
        aliases = self._new_aliases(stored, row)

        def change(model: Model) -> Model:
            model = attrs.evolve(
                model,
                aliases=tuple(dict.fromkeys((*model.aliases, *aliases))),
                defaults=_defaults(stored, model),
                origin=_origin(kind, stored),
            )
            if located is None:
                return seeing_by(model, projector)
            return with_files(located, projector)(model)

        await self._change(row, change, stored.left_out)

    def _new_aliases(self, stored: StoredModel, row: Model) -> tuple[str, ...]:
        """Return the names that it has gained there. What was renamed here keeps its names."""
        if row.name not in stored.names:
            return ()
        there = (row.name, *row.aliases)
        return tuple(name for name in stored.names if name not in there and self._names.take(name))


def _matched(found: Collection[StoredModel], rows: Collection[Model]) -> dict[int, Model]:
    """Return which row each model is, by the model's number.

    The same file of the same repository; else what the repository has in its place now; else
    the same file.
    """
    matched: dict[int, Model] = {}
    for keys_of, key_of in ((_same, _same_as), (_places, _place_of), (_files, _file_of)):
        taken = {row.id for row in matched.values()}
        by_key: dict[object, list[Model]] = {}
        for row in rows:
            for key in keys_of(row) if row.id not in taken else ():
                by_key.setdefault(key, []).append(row)
        for number, stored in enumerate(found):
            left = by_key.get(key_of(stored))
            if number not in matched and left:
                matched[number] = left.pop(0)
    return matched


def _same(row: Model) -> Iterable[object]:
    return [(row.origin.repository, row.path)]


def _same_as(stored: StoredModel) -> object:
    return (stored.repository, stored.files.paths[0])


def _places(row: Model) -> Iterable[object]:
    repository = row.origin.repository
    return [] if repository is None else [repository, (repository, row.path.name)]


def _place_of(stored: StoredModel) -> object:
    return stored.repository if stored.alone else (stored.repository, stored.files.paths[0].name)


def _files(row: Model) -> Iterable[object]:
    return [row.path]


def _file_of(stored: StoredModel) -> object:
    return stored.files.paths[0]


def _origin(kind: str, stored: StoredModel) -> ModelOrigin:
    marks = stored.files.marks
    return ModelOrigin(
        kind=kind,
        repository=stored.repository,
        revision=stored.revision,
        sha256=marks[0].sha256 if len(marks) == 1 else None,
    )


def _defaults(stored: StoredModel, model: Model) -> ModelDefaults:
    """Return how the model is served: what the store says anew wins over what was said here."""
    origin, ours, theirs = model.origin, model.defaults, stored.defaults
    if origin.repository != stored.repository or origin.revision == stored.revision:
        return ours
    inference = ours.inference
    if theirs.inference is not None:
        said = theirs.inference.set_fields()
        inference = attrs.evolve(inference or InferenceConfig(), **said)
    return attrs.evolve(ours, server={**ours.server, **theirs.server}, inference=inference)
