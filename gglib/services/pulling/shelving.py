"""Files that were fetched become a model, or a model's new files, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from gglib.domain.events import ModelAdded, ModelChanged
from gglib.domain.file_mark import FileMark
from gglib.domain.model import Model, ModelOrigin
from gglib.domain.projector import choose_projector, with_projector
from gglib.domain.pull import Pull
from gglib.errors import ModelNotFound
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import ModelSource

__all__ = ["Shelf"]


class Shelf:
    """Puts fetched files into the catalog."""

    def __init__(
        self, *, catalog: ModelCatalog, source: ModelSource, clock: Clock, events: EventSink
    ) -> None:
        self._catalog = catalog
        self._source = source
        self._clock = clock
        self._events = events

    async def put(
        self, pull: Pull, folder: Path, digests: Mapping[str, str]
    ) -> tuple[Model, tuple[Path, ...]]:
        """Return the model that a pull's files are now, and the files that it had before.

        Done again for the same pull it changes nothing: whoever was killed in between may do so.

        Raises:
            InvalidModelFile: what was fetched is no model; it stays where it is.
            ModelExists: its name was taken meanwhile.
        """
        model = await self._read(pull, folder, digests)
        for row in await self._catalog.list():
            if row.name == pull.plan.updates or (
                row.name == model.name and row.paths == model.paths
            ):
                return await self._replace(row, model)
        return await self._add(model)

    async def _add(self, model: Model) -> tuple[Model, tuple[Path, ...]]:
        model = await self._catalog.add(model)
        self._events.emit(
            ModelAdded(at=self._clock.now(), model_id=model.id, model_name=model.name)
        )
        return model, ()

    async def _replace(self, row: Model, new: Model) -> tuple[Model, tuple[Path, ...]]:
        """Give a model new files; what its user has set of it stays."""
        before: list[Model] = []

        def change(model: Model) -> Model:
            before.append(model)
            return attrs.evolve(
                model,
                paths=new.paths,
                size_bytes=new.size_bytes,
                facts=new.facts,
                marks=new.marks,
                mmproj_path=new.mmproj_path,
                origin=new.origin,
            )

        try:
            model = await self._catalog.edit(row.id, change)
        except ModelNotFound:
            # It was removed meanwhile: its name is free again.
            return await self._add(attrs.evolve(new, name=row.name))
        old = before[-1]
        if old != model:
            self._events.emit(
                ModelChanged(at=self._clock.now(), model_id=model.id, model_name=model.name)
            )
        kept = {*model.paths, model.mmproj_path}
        had = [*old.paths, *([old.mmproj_path] if old.mmproj_path else [])]
        ours = old.origin.fetched
        return model, tuple(path for path in had if ours and path not in kept)

    async def _read(self, pull: Pull, folder: Path, digests: Mapping[str, str]) -> Model:
        plan, request = pull.plan, pull.request
        located = await self._source.locate(str(folder / plan.files[0].name))
        projector = None
        if plan.projector is not None:
            projectors = await self._source.projectors(folder)
            projector = choose_projector(located.paths[0], located.facts, projectors)
        names = {file.name: digests[file.path] for file in plan.files}
        marks: tuple[FileMark, ...] = tuple(
            attrs.evolve(mark, sha256=names.get(path.name))
            for path, mark in zip(located.paths, located.marks, strict=False)
        )
        return Model(
            id=0,
            name=plan.model_name,
            paths=located.paths,
            size_bytes=located.size_bytes,
            facts=with_projector(located.facts, projector),
            marks=marks,
            mmproj_path=None if projector is None else projector.path,
            origin=ModelOrigin(
                kind="hub",
                repository=request.reference.repository,
                revision=plan.commit,
                sha256=digests[plan.files[0].path],
                branch=request.reference.revision,
                fetched=True,
            ),
            added_at=self._clock.now(),
        )
