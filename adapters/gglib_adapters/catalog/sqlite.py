"""The model catalog in the data directory's SQLite database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
from sqlalchemy import Connection, Select, delete, exists, insert, select, union_all, update

from gglib.domain.model import Model
from gglib.domain.model_run import KEPT_RUNS, ModelRun
from gglib.errors import ModelExists, ModelNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.model_catalog import ModelCatalog
from gglib_adapters.catalog.documents import read_document, to_document
from gglib_adapters.database import Database, open_database
from gglib_adapters.schema import (
    catalog_revision,
    model_aliases,
    model_names,
    model_runs,
    models,
)

__all__ = ["SqliteModelCatalog", "open_sqlite_catalog"]

_MAX_ID = 2**63 - 1
#: More of it helps nobody.
_MAX_DAMAGE = 5


@asynccontextmanager
async def open_sqlite_catalog(context: AdapterContext) -> AsyncIterator[ModelCatalog]:
    """Open the catalog of ``context.data_dir``.

    Raises:
        DatabaseTooNew, DatabaseCorrupt, DataDirectoryUnusable: as for ``open_database``.
    """
    async with open_database(context) as database:
        yield SqliteModelCatalog(database)


class SqliteModelCatalog(ModelCatalog):
    """Models in SQLite, one document each; names and aliases in tables that keep them unique.

    Names hold their ids: a removed model's name waits for it, a declared model's is
    reserved. Renaming takes the id along, and the old name is then free. If the new name
    was only waiting or reserved, it belongs to the renamed model from then on, and the id
    it had is never given again. So, at any time, a name has one id, and ``id_for_name``
    tells it.
    """

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, model: Model) -> Model:
        """Keep ``model`` and return it with its id; see the port."""

        def work(connection: Connection) -> Model:
            _refuse_taken_names(connection, model, but_id=None)
            kept = attrs.evolve(model, id=_assign_id(connection, model.name))
            connection.execute(insert(models).values(id=kept.id, **_columns(kept)))
            _keep_aliases(connection, kept)
            _count_change(connection)
            return kept

        return await self._database.write(work)

    async def get(self, model_id: int) -> Model:
        """Return the model with this id; see the port."""
        query = _document_of(model_id)
        document = await self._database.read(lambda connection: connection.scalar(query))
        if document is None:
            raise _not_found(model_id)
        return read_document(self._database, f"model #{model_id}", document, Model)

    async def list(self) -> list[Model]:
        """Return all models, by name (in order of code points)."""
        query = (
            select(model_names.c.name, models.c.document)
            .join_from(models, model_names, models.c.id == model_names.c.id)
            .order_by(model_names.c.name)
        )

        def work(connection: Connection) -> list[Model]:
            return [
                read_document(self._database, f"model '{name}'", document, Model)
                for name, document in connection.execute(query)
            ]

        return await self._database.read(work)

    async def update(self, model: Model) -> None:
        """Replace what is kept under ``model.id``; see the port, and the class for renaming."""

        await self._database.write(lambda connection: _update(connection, model))

    async def edit(self, model_id: int, change: Callable[[Model], Model]) -> Model:
        """Replace the model by what ``change`` makes of it, in one transaction; see the port."""
        query = _document_of(model_id)

        def work(connection: Connection) -> Model:
            document = connection.scalar(query)
            if document is None:
                raise _not_found(model_id)
            before = read_document(self._database, f"model #{model_id}", document, Model)
            after = change(before)
            if after != before:
                _update(connection, after)
            return after

        return await self._database.write(work)

    async def remove(self, model_id: int) -> None:
        """Forget the model; its name keeps the id."""

        def work(connection: Connection) -> None:
            if not connection.execute(delete(models).where(models.c.id == model_id)).rowcount:
                raise _not_found(model_id)
            connection.execute(delete(model_runs).where(model_runs.c.model_id == model_id))
            _count_change(connection)

        await self._database.write(work)

    async def id_for_name(self, name: str) -> int:
        """Return the id that belongs to ``name``; writes only if it is new."""
        known = await self._database.read(lambda connection: _known_id(connection, name))
        if known is not None:
            return known

        def work(connection: Connection) -> int:
            model_id = _assign_id(connection, name)
            _count_change(connection)
            return model_id

        return await self._database.write(work)

    async def check(self) -> Sequence[str]:
        """Return what SQLite finds damaged in the whole file, the registry's part too."""

        def work(connection: Connection) -> list[str]:
            rows = connection.exec_driver_sql(f"PRAGMA quick_check({_MAX_DAMAGE})")
            return [str(row[0]) for row in rows if row[0] != "ok"]

        return await self._database.read(work)

    async def revision(self) -> int:
        """Return a number that changes with every change, by any process."""
        query = select(catalog_revision.c.revision)
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def add_run(self, model_id: int, run: ModelRun) -> None:
        """Remember a run of the model, and forget its oldest."""
        known = exists().where(model_names.c.id == model_id)
        runs_of_model = select(model_runs.c.id).where(model_runs.c.model_id == model_id)
        surplus = runs_of_model.order_by(model_runs.c.id.desc()).offset(KEPT_RUNS).limit(-1)

        def work(connection: Connection) -> None:
            if connection.scalar(select(known)):
                connection.execute(
                    insert(model_runs).values(model_id=model_id, document=to_document(run))
                )
                connection.execute(delete(model_runs).where(model_runs.c.id.in_(surplus)))

        await self._database.write(work)

    async def runs(self) -> Mapping[int, Sequence[ModelRun]]:
        """Return what is remembered of each model, the oldest first."""
        query = select(model_runs.c.model_id, model_runs.c.document).order_by(model_runs.c.id)

        def work(connection: Connection) -> dict[int, list[ModelRun]]:
            runs: dict[int, list[ModelRun]] = {}
            for model_id, document in connection.execute(query):
                what = f"a run of model #{model_id}"
                run = read_document(self._database, what, document, ModelRun)
                runs.setdefault(model_id, []).append(run)
            return runs

        return await self._database.read(work)


def _not_found(model_id: int) -> ModelNotFound:
    return ModelNotFound(f"#{model_id}")


def _document_of(model_id: int) -> Select[Any]:
    if not 0 <= model_id <= _MAX_ID:
        raise _not_found(model_id)
    return select(models.c.document).where(models.c.id == model_id)


def _update(connection: Connection, model: Model) -> None:
    changed = connection.execute(
        update(models).where(models.c.id == model.id).values(**_columns(model))
    )
    if not changed.rowcount:
        raise _not_found(model.id)
    _refuse_taken_names(connection, model, but_id=model.id)
    _move_name(connection, model)
    connection.execute(delete(model_aliases).where(model_aliases.c.model_id == model.id))
    _keep_aliases(connection, model)
    _count_change(connection)


def _columns(model: Model) -> dict[str, Any]:
    return {
        "size_bytes": model.size_bytes,
        "architecture": _storable(model.facts.architecture),
        "quantization": _storable(model.facts.quantization),
        "added_at": model.added_at,
        "document": to_document(model),
    }


def _storable(text: str | None) -> str | None:
    """Return what a column can hold of a file's text: the document has it whole."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _known_id(connection: Connection, name: str) -> int | None:
    return connection.scalar(select(model_names.c.id).where(model_names.c.name == name))


def _assign_id(connection: Connection, name: str) -> int:
    known = _known_id(connection, name)
    if known is not None:
        return known
    created = insert(model_names).values(name=name).returning(model_names.c.id)
    return int(connection.execute(created).scalar_one())


def _move_name(connection: Connection, model: Model) -> None:
    others = (model_names.c.name == model.name) & (model_names.c.id != model.id)
    connection.execute(delete(model_names).where(others))
    connection.execute(
        update(model_names).where(model_names.c.id == model.id).values(name=model.name)
    )


def _keep_aliases(connection: Connection, model: Model) -> None:
    for alias in set(model.aliases):
        connection.execute(insert(model_aliases).values(alias=alias, model_id=model.id))


def _count_change(connection: Connection) -> None:
    revision = catalog_revision.c.revision
    connection.execute(update(catalog_revision).values(revision=revision + 1))


def _refuse_taken_names(connection: Connection, model: Model, *, but_id: int | None) -> None:
    wanted = (model.name, *model.aliases)
    names = select(model_names.c.name, model_names.c.name.label("holder"), models.c.id).join_from(
        models, model_names, models.c.id == model_names.c.id
    )
    aliases = select(model_aliases.c.alias, model_names.c.name, model_aliases.c.model_id).join_from(
        model_aliases, model_names, model_aliases.c.model_id == model_names.c.id
    )
    query = union_all(
        names.where(model_names.c.name.in_(wanted)),
        aliases.where(model_aliases.c.alias.in_(wanted)),
    )
    holders = {
        name: holder for name, holder, held_by in connection.execute(query) if held_by != but_id
    }
    for name in wanted:
        if name in holders:
            raise ModelExists(name, holders[name])
