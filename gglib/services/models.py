"""The models a user knows by name: the catalog's, overlaid by those of the configuration."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import attrs

from gglib.domain.events import ModelAdded
from gglib.domain.model import (
    Model,
    ModelDefaults,
    ModelFacts,
    ModelOrigin,
    Profile,
    check_alias,
)
from gglib.domain.names import NameIndex, ResolvedName
from gglib.domain.projector import Projector, choose_projector, with_projector
from gglib.errors import GglibError, ModelError, NotConfigured
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.far_files import FarFiles
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.ports.model_store import ModelStore
from gglib.services.model_imports import ModelImports, OpenStore
from gglib.services.sources import FILES, ModelSources, reference_of

__all__ = ["Declaration", "Declared", "ModelService"]

#: How soon a change that another process makes to the catalog is seen.
_WATCH_INTERVAL_S = 1.0


def _no_store(name: str) -> AbstractAsyncContextManager[ModelStore]:
    raise NotConfigured(f"importing from {name}", "`gglib.open()` knows other tools' stores")


@attrs.frozen(kw_only=True)
class Declaration:
    """A model that a configuration file declares."""

    name: str
    path: Path
    aliases: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    defaults: ModelDefaults = attrs.field(factory=ModelDefaults)


@attrs.frozen(kw_only=True)
class Declared:
    """Declarations whose files were looked at, and every model there is with them."""

    declarations: tuple[Declaration, ...]
    by_name: Mapping[str, Model] = attrs.field(hash=False)
    models: Mapping[str, Model] = attrs.field(hash=False)
    """Of the catalog too, by name."""


class ModelService(ModelImports):
    """Finds, adds and changes models. Declared models win over catalog rows of their name."""

    def __init__(
        self,
        catalog: ModelCatalog,
        source: ModelSource,
        *,
        clock: Clock,
        events: EventSink,
        declarations: Iterable[Declaration] = (),
        files_at: Callable[[str], Awaitable[FarFiles | None]] | None = None,
        open_store: OpenStore = _no_store,
    ) -> None:
        """``files_at``: the files that a runner's servers find; ``None`` = this machine's."""
        self._open_store = open_store
        self._catalog = catalog
        self._sources = source if isinstance(source, ModelSources) else ModelSources(source)
        self._files_at = files_at
        self._clock = clock
        self._events = events
        self._declarations = tuple(declarations)
        self._declared: Mapping[str, Model] | None = None
        self._models: Mapping[str, Model] = {}
        self._index = NameIndex(())
        self._revision: int | None = None

    def peek(self, name: str) -> ResolvedName | None:
        """Return what ``name`` means as far as is known without asking the catalog, or ``None``."""
        return self._index.find(name)

    async def resolve(self, name: str) -> ResolvedName:
        """Return what ``name`` means now.

        Raises:
            ModelNotFound: nothing; carries close names.
            AmbiguousModel: several models.
        """
        await self.refresh()
        return self._index.resolve(name)

    async def list(self) -> list[Model]:
        """Return every model, by name; ``find_models`` picks and sorts them."""
        await self.refresh()
        return sorted(self._models.values(), key=lambda model: model.name)

    async def add(
        self,
        reference: str | os.PathLike[str],
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        defaults: ModelDefaults | None = None,
        runner: str | None = None,
    ) -> Model:
        """Read the file that ``reference`` names and keep it as a model.

        ``reference`` is a path, relative to the working directory or absolute, with ``~`` for
        a home; or, as a text, ``NAME:REST`` for what the source ``NAME`` calls ``REST``. A
        projector that lies beside the file and is the model's is kept with it.
        ``runner``: the path is one on the machine of its servers, which will serve the model.

        Raises:
            NodeUnreachable: that machine cannot be reached.
            ModelFileMissing, InvalidModelFile: there is no model there.
            AdapterError: the source that it names is broken.
            ModelExists: the name, or an alias, is taken.
            InvalidValue: the name, or an alias, cannot be one.
        """
        names = tuple(dict.fromkeys(check_alias(alias) for alias in aliases))
        if not isinstance(reference, str):
            reference = reference_of(reference)
        source = await self._source_at(runner)
        is_here = source is self._sources
        located = await source.locate(reference)
        projector = await _projector_of(located, source)
        await self.refresh()
        defaults = defaults or ModelDefaults()
        model = Model(
            id=0,
            name=located.suggested_name if name is None else name,
            paths=located.paths,
            size_bytes=located.size_bytes,
            facts=with_projector(located.facts, projector),
            marks=located.marks,
            mmproj_path=None if projector is None else projector.path,
            aliases=names,
            defaults=attrs.evolve(defaults, runner=runner) if runner else defaults,
            origin=ModelOrigin(
                kind=self._sources.split(reference)[0] if is_here else FILES,
                runner=None if is_here else runner,
            ),
            added_at=self._clock.now(),
        )
        self._refuse_declared_names((model.name, *names))
        model = await self._catalog.add(model)
        self._events.emit(
            ModelAdded(at=self._clock.now(), model_id=model.id, model_name=model.name)
        )
        return model

    async def refresh(self) -> None:
        """Take up what has changed in the catalog since the last look. Cheap when nothing has."""
        revision = await self._catalog.revision()
        if revision == self._revision:
            return
        if self._declared is None:
            self._declared = {item.name: await self._declare(item) for item in self._declarations}
            # Declaring may have given ids to new names, which is a change of its own.
            revision = await self._catalog.revision()
        rows = await self._catalog.list()
        self._take(_overlaid(self._declared, rows), revision)

    async def declare(self, declarations: Iterable[Declaration]) -> Declared:
        """Look at what a configuration file declares now; nothing changes until ``take_up``.

        What is declared as before stays the very same model.

        Raises:
            StorageError: the catalog cannot be read, or cannot name a new model.
        """
        await self.refresh()
        declarations = tuple(declarations)
        before = {item.name: item for item in self._declarations}
        known = self._declared or {}
        by_name: dict[str, Model] = {}
        for item in declarations:
            old = known.get(item.name)
            # A file that could not be read is looked at again: it may have come meanwhile.
            if old is None or before[item.name] != item or not old.size_bytes:
                new = await self._declare(item)
                old = old if old == new else new
            by_name[item.name] = old
        rows = await self._catalog.list()
        return Declared(declarations=declarations, by_name=by_name, models=_overlaid(by_name, rows))

    def take_up(self, declared: Declared) -> None:
        """Know these models from now on. What the catalog has gained meanwhile comes later."""
        self._declarations = declared.declarations
        self._declared = declared.by_name
        # No revision: the next look reads the catalog again.
        self._take(declared.models, None)

    @property
    def known(self) -> Mapping[str, Model]:
        """Every model by name, as far as is known without asking the catalog."""
        return self._models

    async def watch(
        self, on_change: Callable[[Sequence[Model]], Awaitable[None]] | None = None
    ) -> None:
        """Keep ``peek`` up to date with what other processes change, for ever.

        Whatever has changed the models, ``on_change`` is told what there is now.
        """
        seen = self._revision
        while True:
            await self._clock.sleep(_WATCH_INTERVAL_S)
            try:
                await self.refresh()
            except GglibError:
                # The next look, or the request that needs the catalog, will tell.
                continue
            if self._revision != seen and on_change is not None:
                seen = self._revision
                await on_change(tuple(self._models.values()))

    def _take(self, models: Mapping[str, Model], revision: int | None) -> None:
        self._models = models
        self._index = NameIndex(models.values())
        self._revision = revision

    async def _source_at(self, runner: str | None) -> ModelSource:
        files = None
        if runner is not None and self._files_at is not None:
            files = await self._files_at(runner)
        return self._sources if files is None else self._sources.elsewhere(files)

    async def _declare(self, item: Declaration) -> Model:
        try:
            located = await self._sources.locate(reference_of(item.path))
            projector = await _projector_of(located, self._sources)
        except ModelError:
            projector = None
            # An engine of the user's may serve what we cannot read, or the file may come later.
            located = LocatedModel(
                paths=(item.path,),
                size_bytes=await _size_of(item.path),
                facts=ModelFacts(),
                suggested_name=item.name,
            )
        return Model(
            id=await self._catalog.id_for_name(item.name),
            name=item.name,
            paths=located.paths,
            size_bytes=located.size_bytes,
            facts=with_projector(located.facts, projector),
            mmproj_path=None if projector is None else projector.path,
            aliases=item.aliases,
            profiles=item.profiles,
            defaults=item.defaults,
            origin=ModelOrigin(kind="config"),
        )


async def _projector_of(located: LocatedModel, source: ModelSource) -> Projector | None:
    path = located.paths[0]
    return choose_projector(path, located.facts, await source.projectors(path.parent))


def _overlaid(declared: Mapping[str, Model], rows: Iterable[Model]) -> Mapping[str, Model]:
    """Return the declared models and, of other names, those of the catalog.

    The declared first: the first to have an alias keeps it.
    """
    return {**declared, **{row.name: row for row in rows if row.name not in declared}}


async def _size_of(path: Path) -> int:
    try:
        return (await anyio.Path(path).stat()).st_size
    except OSError:
        return 0
