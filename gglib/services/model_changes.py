"""What can be changed of the models in the catalog: the half of ``ModelService`` that writes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from gglib.domain.events import ModelChanged, ModelRemoved
from gglib.domain.file_mark import same_files
from gglib.domain.model import Model, Profile, check_alias
from gglib.domain.names import ResolvedName
from gglib.domain.projector import with_abilities_of_projector
from gglib.errors import (
    InvalidModelFile,
    InvalidRequest,
    InvalidValue,
    ModelExists,
    ModelNotFound,
)
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import ModelSource
from gglib.services.catalog_steps import ScanStep
from gglib.services.model_settings import changed_defaults, changed_profile
from gglib.services.scanning import scan_folders
from gglib.services.sources import ModelSources, reference_of
from gglib.services.verifying import Verification, verify_files

__all__ = ["ModelChanges"]

_MAX_TAG = 100


class ModelChanges(ABC):
    """Changes models by name. What a configuration file declares is changed there alone.

    Every call is one transaction, and keeps what other processes change meanwhile. Those that
    take a name raise ``ModelNotFound`` or ``AmbiguousModel`` where there is no one such model,
    and ``InvalidRequest`` for a declared one.
    """

    _catalog: ModelCatalog
    _sources: ModelSources
    _clock: Clock
    _events: EventSink
    _declared: Mapping[str, Model] | None

    @abstractmethod
    async def resolve(self, name: str) -> ResolvedName:
        """Return what ``name`` means now."""

    @abstractmethod
    async def refresh(self) -> None:
        """Take up what has changed in the catalog since the last look."""

    @abstractmethod
    async def _source_at(self, runner: str | None) -> ModelSource:
        """Return the source of the files that a runner's servers find; ours for ``None``."""

    async def rename(self, name: str, new_name: str) -> Model:
        """Call a model otherwise; its id, settings and history stay.

        Raises:
            ModelExists: the name is taken.
            InvalidValue: it cannot be a name.
        """
        return await self._edit(
            name,
            lambda model: attrs.evolve(
                model,
                name=new_name,
                aliases=tuple(alias for alias in model.aliases if alias != new_name),
            ),
            new_names=(new_name,),
        )

    async def add_aliases(self, name: str, aliases: Iterable[str]) -> Model:
        """Give a model more names. Those that it has already are no error.

        Raises:
            ModelExists: one is taken.
            InvalidValue: one cannot be a name.
        """
        new = [check_alias(alias) for alias in aliases]
        return await self._edit(
            name,
            lambda model: attrs.evolve(
                model,
                aliases=tuple(
                    dict.fromkeys(alias for alias in (*model.aliases, *new) if alias != model.name)
                ),
            ),
            new_names=new,
        )

    async def remove_aliases(self, name: str, aliases: Iterable[str]) -> Model:
        """Take names from a model.

        Raises:
            InvalidRequest: it has no such alias.
        """
        gone = tuple(aliases)
        return await self._edit(
            name,
            lambda model: attrs.evolve(
                model, aliases=_without(model, "alias", model.aliases, gone)
            ),
        )

    async def add_tags(self, name: str, tags: Iterable[str]) -> Model:
        """Mark a model with words. Those that it has already are no error.

        Raises:
            InvalidValue: one is empty, longer than 100 characters, or cannot be printed.
        """
        new = [_checked_tag(tag) for tag in tags]
        return await self._edit(
            name,
            lambda model: attrs.evolve(model, tags=tuple(dict.fromkeys((*model.tags, *new)))),
        )

    async def remove_tags(self, name: str, tags: Iterable[str]) -> Model:
        """Take words from a model.

        Raises:
            InvalidRequest: it has no such tag.
        """
        gone = tuple(tags)
        return await self._edit(
            name, lambda model: attrs.evolve(model, tags=_without(model, "tag", model.tags, gone))
        )

    async def configure(self, name: str, settings: Mapping[str, Any]) -> Model:
        """Set how a model is served, by the keys of ``[models.NAME]``; ``None`` clears one.

        For example ``{"context_size": 8192, "inference.temperature": 0.7, "ttl_s": None}``.
        ``engine``, ``environment`` and ``extra_args`` decide what is run on this machine: not
        for values of strangers.

        Raises:
            InvalidRequest: a key is unknown; names the nearest.
            InvalidValue: a value is out of its range.
        """
        return await self._edit(
            name,
            lambda model: attrs.evolve(model, defaults=changed_defaults(model.defaults, settings)),
        )

    async def set_profile(self, name: str, profile: str, settings: Mapping[str, Any]) -> Model:
        """Set a profile of a model, made if there is none; ``None`` clears a key.

        Raises:
            InvalidRequest, InvalidValue: as for ``configure``.
        """

        def change(model: Model) -> Model:
            known = {each.name: each for each in model.profiles}
            known[profile] = changed_profile(known.get(profile) or Profile(name=profile), settings)
            return attrs.evolve(model, profiles=tuple(known.values()))

        return await self._edit(name, change)

    async def remove_profile(self, name: str, profile: str) -> Model:
        """Take a profile from a model.

        Raises:
            InvalidRequest: it has no such profile.
        """

        def change(model: Model) -> Model:
            names = tuple(each.name for each in model.profiles)
            kept = _without(model, "profile", names, (profile,))
            profiles = tuple(each for each in model.profiles if each.name in kept)
            return attrs.evolve(model, profiles=profiles)

        return await self._edit(name, change)

    async def remove(self, name: str, *, delete_files: bool = False) -> Model:
        """Forget the model that ``name`` means, and return it.

        Its files stay, unless ``delete_files``: then those that gglib fetched are deleted, too.

        Raises:
            InvalidRequest: gglib did not fetch its files, or another model has one of them;
                nothing was changed.
            InvalidModelFile: it is forgotten, and one of its files could not be deleted.
        """
        model = await self._own(name)
        if delete_files:
            await self._check_deletable(model)
        await self._catalog.remove(model.id)
        self._events.emit(
            ModelRemoved(at=self._clock.now(), model_id=model.id, model_name=model.name)
        )
        if delete_files:
            for path in (*model.paths, *await self._own_projector(model)):
                await self._sources.delete(path)
        return model

    async def _own_projector(self, model: Model) -> tuple[Path, ...]:
        """Return the projector that was fetched with a model, if nobody else has it."""
        path = model.mmproj_path
        if path is None or path.parent != model.path.parent:
            return ()
        rows = await self._catalog.list()
        return () if any(row.mmproj_path == path for row in rows if row.id != model.id) else (path,)

    async def scan(
        self,
        folders: Iterable[str | os.PathLike[str]],
        *,
        runner: str | None = None,
        prune: bool = False,
        on_step: Callable[[ScanStep], None] | None = None,
    ) -> Sequence[ScanStep]:
        """Add the models that lie in ``folders`` and below, and take up files that have changed.

        What was not written to since it was read is not read again. A name that is taken, or
        looks like one that is, gets its folder's before it, or a number behind. Models whose
        files are gone are told of; with ``prune`` they are removed. Nothing that is wrong with
        one file or folder keeps the others from being taken. ``on_step`` is told each step.
        ``runner``: the folders are on the machine of its servers, which will serve the models.

        Raises:
            NodeUnreachable: that machine cannot be reached; some models may have been added.
            AdapterError: there is no such runner.
            ModelFileMissing, InvalidModelFile: one of ``folders`` is no folder; nothing was done.
        """
        await self.refresh()
        source = await self._source_at(runner)
        return await scan_folders(
            folders,
            sources=source,
            runner=None if source is self._sources else runner,
            catalog=self._catalog,
            declared=tuple((self._declared or {}).values()),
            clock=self._clock,
            events=self._events,
            prune=prune,
            on_step=on_step,
        )

    async def verify(
        self,
        name: str,
        *,
        accept: bool = False,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Verification:
        """Read a model's files whole, and compare their SHA-256 with what is on record.

        What was never on record is recorded, unless the file was written to since it was added;
        with ``accept`` the files are recorded as they are now. ``on_bytes`` is told how many more
        bytes were read. Of a declared model nothing is on record. Files of another machine, where
        the model was added or is declared to be served (of several, the first), are read there.

        Raises:
            InvalidModelFile: what is to be accepted is no model any more.
            NodeUnreachable: that machine cannot be reached.
            NotConfigured: nothing there computes a SHA-256.
            ModelFileMissing: a file that is declared for that machine is not there.
        """
        model = (await self.resolve(name)).model
        is_declared = model.origin.kind == "config"
        declared_for = next(iter(model.defaults.runners), None)
        runner = declared_for if is_declared else model.origin.runner
        source = await self._source_at(runner)
        if is_declared and source is not self._sources:
            # Which files are declared for another machine is told there. What is no model to
            # us has one file.
            with suppress(InvalidModelFile):
                located = await source.locate(str(model.path))
                model = attrs.evolve(model, paths=located.paths)
        files, marks = await verify_files(model, source, accept=accept, on_bytes=on_bytes)
        if marks and not is_declared:
            facts = model.facts
            if accept and not same_files(model.marks, marks):
                located = await source.locate(reference_of(model.path))
                facts = with_abilities_of_projector(located.facts, model.facts)
            accepted = attrs.evolve(
                model, marks=marks, facts=facts, size_bytes=sum(mark.size_bytes for mark in marks)
            )
            model = await self._change(model, lambda row: _with_files_of(row, accepted))
        return Verification(model=model, files=files)

    def _refuse_declared_names(self, names: Iterable[str]) -> None:
        for declared in (self._declared or {}).values():
            for taken in names:
                if taken in (declared.name, *declared.aliases):
                    raise ModelExists(taken, f"{declared.name} (declared in the configuration)")

    async def _own(self, name: str) -> Model:
        """Return the row that ``name`` means."""
        model = (await self.resolve(name)).model
        if model.origin.kind == "config":
            raise InvalidRequest(
                f"model '{model.name}' is declared in the configuration file; change it there",
                "model",
            )
        return model

    async def _edit(
        self, name: str, change: Callable[[Model], Model], *, new_names: Iterable[str] = ()
    ) -> Model:
        model = await self._own(name)
        self._refuse_declared_names(new_names)
        return await self._change(model, change)

    async def _change(self, model: Model, change: Callable[[Model], Model]) -> Model:
        try:
            changed = await self._catalog.edit(model.id, change)
        except ModelNotFound:
            raise ModelNotFound(model.name) from None
        if changed != model:
            self._events.emit(
                ModelChanged(at=self._clock.now(), model_id=model.id, model_name=changed.name)
            )
        return changed

    async def _check_deletable(self, model: Model) -> None:
        if not model.origin.fetched:
            raise InvalidRequest(
                f"gglib did not fetch {model.path}, and does not delete it; without "
                "--delete-file the model is forgotten and its file stays",
                "delete_files",
            )
        for row in await self._catalog.list():
            shared = set(model.paths).intersection((*row.paths, row.mmproj_path))
            if row.id != model.id and shared:
                raise InvalidRequest(
                    f"model '{row.name}' uses {min(shared)}, too; remove it first", "delete_files"
                )


def _with_files_of(row: Model, other: Model) -> Model:
    """Return the row with what the other knows of its files: if they are the same ones."""
    if row.paths != other.paths:
        return row
    return attrs.evolve(row, marks=other.marks, facts=other.facts, size_bytes=other.size_bytes)


def _without(
    model: Model, what: str, there: tuple[str, ...], gone: tuple[str, ...]
) -> tuple[str, ...]:
    for each in gone:
        if each not in there:
            has = ", ".join(f"'{one}'" for one in there) or "none"
            raise InvalidRequest(f"model '{model.name}' has no {what} '{each}'; it has {has}", what)
    return tuple(each for each in there if each not in gone)


def _checked_tag(tag: str) -> str:
    if not 1 <= len(tag) <= _MAX_TAG or not tag.isprintable() or tag != tag.strip():
        expected = f"1 to {_MAX_TAG} printable characters, without spaces at its ends"
        raise InvalidValue("tag", tag, expected)
    return tag
