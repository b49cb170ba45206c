"""The models gglib knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from gglib.domain.model import Model
from gglib.domain.model_run import ModelRun

__all__ = ["ModelCatalog"]


class ModelCatalog(ABC):
    """Keeps models. Each call is one transaction: done whole, and durable, or not at all."""

    __slots__ = ()

    @abstractmethod
    async def add(self, model: Model) -> Model:
        """Keep ``model`` and return it with its id (``model.id`` is ignored).

        A name keeps its id for ever: removed and added again, it has the same one.

        Raises:
            ModelExists: its name, or one of its aliases, names another model.
        """

    @abstractmethod
    async def get(self, model_id: int) -> Model:
        """Return the model with this id.

        Raises:
            ModelNotFound: there is none.
        """

    @abstractmethod
    async def list(self) -> list[Model]:
        """Return all models, by name."""

    @abstractmethod
    async def update(self, model: Model) -> None:
        """Replace what is kept under ``model.id``.

        Raises:
            ModelNotFound: there is none.
            ModelExists: its new name, or an alias, names another model.
        """

    async def edit(self, model_id: int, change: Callable[[Model], Model]) -> Model:
        """Replace the model by what ``change`` makes of it now, and return that.

        Nothing comes between: of edits that meet, each begins with what the other has made.
        ``change`` is pure, keeps the id, and may be called more than once, in any thread; what it
        raises is raised, and nothing is changed. What it returns as it was is no change.

        Here it reads, then writes: a catalog that others can write to meanwhile overrides it.

        Raises:
            ModelNotFound, ModelExists: as for ``update``.
        """
        before = await self.get(model_id)
        after = change(before)
        if after != before:
            await self.update(after)
        return after

    @abstractmethod
    async def remove(self, model_id: int) -> None:
        """Forget the model. Files are not touched.

        Raises:
            ModelNotFound: there is none.
        """

    @abstractmethod
    async def id_for_name(self, name: str) -> int:
        """Return the id that belongs to ``name``, assigning one if it is new.

        For models that are declared elsewhere (a configuration file).
        """

    @abstractmethod
    async def revision(self) -> int:
        """Return a number that changes with every change, by any process. Cheap."""

    async def add_run(self, model_id: int, run: ModelRun) -> None:
        """Remember a run of the model; of each model the newest ``KEPT_RUNS`` are kept.

        Whose id belongs to no name is forgotten at once, and with a model its runs go. It is
        no change that ``revision`` tells of. A catalog that remembers none does nothing here:
        then memory is estimated without what was seen.
        """
        del model_id, run

    async def runs(self) -> Mapping[int, Sequence[ModelRun]]:
        """Return what is remembered of each model, by its id, the oldest first."""
        return {}

    async def check(self) -> Sequence[str]:
        """Return what is damaged, in words for people; nothing where all can be read.

        Reads everything: slower than any other call.
        """
        return ()
