"""The catalog and the registry in memory: for tests, and for those who want no database.

They keep every promise of their ports within one process, and last as long as the object:
"durable" means no more than that. Safe for any number of tasks, not for threads.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
from anyio.lowlevel import checkpoint

from gglib.domain.model import Model
from gglib.domain.model_run import KEPT_RUNS, ModelRun
from gglib.domain.ownership import ServerRecord
from gglib.errors import ModelExists, ModelNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.server_registry import ServerRegistry

__all__ = [
    "MemoryModelCatalog",
    "MemoryServerRegistry",
    "open_memory_catalog",
    "open_memory_registry",
]

# Every call is one checkpoint and then one step without any: a call that is cancelled has
# done nothing, and no other task sees half of one.


class MemoryModelCatalog(ModelCatalog):
    """Models in a dictionary. ``models`` are added at once, in order.

    Names hold their ids as in the SQLite catalog: renaming takes the id along, and an id
    that the new name had before is never given again.
    """

    __slots__ = ("_holders", "_ids", "_last_id", "_models", "_revision", "_runs")

    def __init__(self, *models: Model) -> None:
        self._models: dict[int, Model] = {}
        self._holders: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._last_id = 0
        self._revision = 0
        self._runs: defaultdict[int, deque[ModelRun]] = defaultdict(lambda: deque(maxlen=KEPT_RUNS))
        for model in models:
            self._add(model)

    async def add(self, model: Model) -> Model:
        """Keep ``model`` and return it with its id; see the port."""
        await checkpoint()
        return self._add(model)

    async def get(self, model_id: int) -> Model:
        """Return the model with this id; see the port."""
        await checkpoint()
        return self._get(model_id)

    async def list(self) -> list[Model]:
        """Return all models, by name (in order of code points)."""
        await checkpoint()
        return sorted(self._models.values(), key=lambda model: model.name)

    async def update(self, model: Model) -> None:
        """Replace what is kept under ``model.id``; see the port, and the class for renaming."""
        await checkpoint()
        self._update(model)

    async def edit(self, model_id: int, change: Callable[[Model], Model]) -> Model:
        """Replace the model by what ``change`` makes of it; see the port."""
        await checkpoint()
        before = self._get(model_id)
        after = change(before)
        if after != before:
            self._update(after)
        return after

    async def remove(self, model_id: int) -> None:
        """Forget the model; its name keeps the id."""
        await checkpoint()
        self._forget(self._get(model_id))
        self._runs.pop(model_id, None)
        self._revision += 1

    async def id_for_name(self, name: str) -> int:
        """Return the id that belongs to ``name``, assigning one if it is new."""
        await checkpoint()
        if name not in self._ids:
            self._revision += 1
        return self._assign_id(name)

    async def revision(self) -> int:
        """Return a number that changes with every change."""
        await checkpoint()
        return self._revision

    async def add_run(self, model_id: int, run: ModelRun) -> None:
        """Remember a run of the model."""
        await checkpoint()
        if model_id in self._ids.values():
            self._runs[model_id].append(run)

    async def runs(self) -> Mapping[int, Sequence[ModelRun]]:
        """Return what is remembered of each model, the oldest first."""
        await checkpoint()
        return {model_id: tuple(runs) for model_id, runs in self._runs.items()}

    def _add(self, model: Model) -> Model:
        self._refuse_taken_names(model, but_id=None)
        kept = attrs.evolve(model, id=self._assign_id(model.name))
        self._keep(kept)
        return kept

    def _update(self, model: Model) -> None:
        before = self._get(model.id)
        self._refuse_taken_names(model, but_id=model.id)
        del self._ids[before.name]
        displaced = self._ids.get(model.name)
        if displaced is not None:
            self._runs.pop(displaced, None)
        self._ids[model.name] = model.id
        self._forget(before)
        self._keep(model)

    def _get(self, model_id: int) -> Model:
        try:
            return self._models[model_id]
        except KeyError:
            raise ModelNotFound(f"#{model_id}") from None

    def _keep(self, model: Model) -> None:
        self._models[model.id] = model
        for name in (model.name, *model.aliases):
            self._holders[name] = model.id
        self._revision += 1

    def _forget(self, model: Model) -> None:
        del self._models[model.id]
        for name in {model.name, *model.aliases}:
            del self._holders[name]

    def _assign_id(self, name: str) -> int:
        if name not in self._ids:
            self._last_id += 1
            self._ids[name] = self._last_id
        return self._ids[name]

    def _refuse_taken_names(self, model: Model, *, but_id: int | None) -> None:
        for name in (model.name, *model.aliases):
            holder = self._holders.get(name)
            if holder is not None and holder != but_id:
                raise ModelExists(name, self._models[holder].name)


class MemoryServerRegistry(ServerRegistry):
    """Records in a dictionary; ``records`` are on record from the start."""

    __slots__ = ("_records",)

    def __init__(self, *records: ServerRecord) -> None:
        self._records = {record.server_id: record for record in records}

    async def put(self, record: ServerRecord) -> None:
        """Write ``record``, replacing the one with its ``server_id``."""
        await checkpoint()
        self._records[record.server_id] = record

    async def get(self, server_id: str) -> ServerRecord | None:
        """Return the record, or ``None``."""
        await checkpoint()
        return self._records.get(server_id)

    async def list(self) -> list[ServerRecord]:
        """Return all records, oldest first."""
        await checkpoint()
        records = self._records.values()
        return sorted(records, key=lambda record: (record.created_at, record.server_id))

    async def remove(self, server_id: str) -> None:
        """Forget the record; does nothing if there is none."""
        await checkpoint()
        self._records.pop(server_id, None)


@asynccontextmanager
async def open_memory_catalog(context: AdapterContext) -> AsyncIterator[ModelCatalog]:
    """Open an empty catalog; it has no settings, and no other opening sees its models."""
    del context
    yield MemoryModelCatalog()


@asynccontextmanager
async def open_memory_registry(context: AdapterContext) -> AsyncIterator[ServerRegistry]:
    """Open an empty registry; it has no settings, and no other opening sees its records."""
    del context
    yield MemoryServerRegistry()
