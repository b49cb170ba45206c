"""Step by step, making the catalog agree with what was found on the disks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from pathlib import Path

import attrs

from gglib.domain.events import Event, ModelAdded, ModelChanged, ModelRemoved
from gglib.domain.file_mark import FileMark, same_files
from gglib.domain.free_names import FreeNames
from gglib.domain.model import Model
from gglib.domain.projector import Projector, with_projector, without_projector
from gglib.errors import InvalidModelFile, ModelError, ModelExists, ModelNotFound
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import FoundFiles, LocatedModel, ModelSource
from gglib.services.sources import reference_of

__all__ = ["CatalogSteps", "ScanOutcome", "ScanStep", "names_of", "seeing_by", "with_files"]

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
    left_out: tuple[str, ...] = ()
    """Of what another tool says of the model: what gglib has no place for, and why."""
    done: int
    total: int


def names_of(models: Iterable[Model]) -> list[str]:
    """Return the names that these models have, aliases too."""
    return [name for model in models for name in (model.name, *model.aliases)]


class CatalogSteps:
    """Deals with one find after the other. Each step that changes the catalog is a transaction."""

    def __init__(
        self,
        sources: ModelSource,
        catalog: ModelCatalog,
        clock: Clock,
        events: EventSink,
        rows: Collection[Model],
        declared: Collection[Model],
        names: Collection[str],
        on_step: Callable[[ScanStep], None] | None,
        *,
        runner: str | None = None,
    ) -> None:
        """``names``: those that are taken; ``runner``: on whose machine the files are."""
        self.steps: list[ScanStep] = []
        self._sources = sources
        self._catalog = catalog
        self._clock = clock
        self._events = events
        self._rows = rows
        self._declared = {path: model.name for model in declared for path in model.paths}
        self._names = FreeNames(names)
        self._runner = runner
        self._on_step = on_step
        self._total = 0

    async def _read(self, found: FoundFiles) -> LocatedModel:
        located = await self._sources.locate(reference_of(found.paths[0]))
        if located.marks and not same_files(located.marks, found.marks):
            raise InvalidModelFile(
                found.paths[0], "it changed during the scan; try again when it is complete"
            )
        return attrs.evolve(located, marks=_with_digests(located.marks, found.marks))

    async def _add(
        self, model: Model, qualifier: str, wanted: str, left_out: tuple[str, ...] = ()
    ) -> None:
        """Keep a new model under the name that is ``wanted``, or one like it."""
        for attempt in range(_ATTEMPTS):
            model = attrs.evolve(model, name=self._names.choose(wanted, qualifier))
            try:
                model = await self._catalog.add(model)
                break
            except ModelExists:
                if attempt == _ATTEMPTS - 1:
                    raise
        self._emit(ModelAdded(at=self._clock.now(), model_id=model.id, model_name=model.name))
        self._tell(ScanOutcome.ADDED, model.path, model.name, left_out=left_out)

    async def _change(
        self, row: Model, change: Callable[[Model], Model], left_out: tuple[str, ...] = ()
    ) -> None:
        if change(row) == row:
            self._tell(ScanOutcome.UNCHANGED, row.path, row.name)
            return
        model = await self._catalog.edit(row.id, change)
        self._emit(ModelChanged(at=self._clock.now(), model_id=model.id, model_name=model.name))
        self._tell(ScanOutcome.CHANGED, model.path, model.name, left_out=left_out)

    def _refuse(self, path: Path, row: Model | None, error: ModelError) -> None:
        """Tell why a find is not taken. A row that another process has removed was meant to go."""
        if isinstance(error, ModelNotFound):
            self._tell(ScanOutcome.UNCHANGED, path)
            return
        reason = error.reason if isinstance(error, InvalidModelFile) else str(error)
        self._tell(ScanOutcome.REFUSED, path, None if row is None else row.name, reason)

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
        self,
        outcome: ScanOutcome,
        path: Path,
        name: str | None = None,
        reason: str | None = None,
        left_out: tuple[str, ...] = (),
    ) -> None:
        step = ScanStep(
            outcome=outcome,
            path=path,
            model_name=name,
            reason=reason,
            left_out=left_out,
            done=len(self.steps) + 1,
            total=self._total,
        )
        self.steps.append(step)
        if self._on_step is not None:
            self._on_step(step)


def seeing_by(model: Model, projector: Projector | None) -> Model:
    """Return the model with the projector that it has now, or none."""
    path = None if projector is None else projector.path
    if path == model.mmproj_path:
        return model
    facts = with_projector(without_projector(model.facts), projector)
    return attrs.evolve(model, mmproj_path=path, facts=facts)


def with_files(located: LocatedModel, projector: Projector | None) -> Callable[[Model], Model]:
    """Return what makes of a model the one with these files."""

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


def _with_digests(marks: tuple[FileMark, ...], found: tuple[FileMark, ...]) -> tuple[FileMark, ...]:
    """Return the marks with the SHA-256 that is known of the same files."""
    pairs = zip(marks, found, strict=True) if marks else ()
    return tuple(attrs.evolve(mark, sha256=mark.sha256 or each.sha256) for mark, each in pairs)
