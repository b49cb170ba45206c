"""What other tools keep of models on this machine: found where it lies, never changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

import attrs

from gglib.domain.model import ModelDefaults
from gglib.domain.projector import Projector
from gglib.ports.model_source import FoundFiles, PassedOver

__all__ = ["ModelStore", "StoreSurvey", "StoredModel"]


@attrs.frozen(kw_only=True)
class StoredModel:
    """One model of a store, by reference. Its files were not read."""

    files: FoundFiles
    """Their marks have a SHA-256 where the store says it."""
    repository: str | None = None
    """What the store calls it, or the repository that it is from."""
    revision: str | None = None
    """Changes when the store's model does."""
    alone: bool = False
    """Whether it is all that its repository has: a new file there is the same model."""
    names: tuple[str, ...] = ()
    """Valid names, the best first; none: its file has the name."""
    qualifier: str = ""
    """What goes before a name that is taken."""
    projector: Projector | None = None
    """The one that the store says it has. Else it may be one of the survey's."""
    defaults: ModelDefaults = attrs.field(factory=ModelDefaults)
    left_out: tuple[str, ...] = ()
    """What the store says of it and gglib has no place for, and why: for people."""


@attrs.frozen(kw_only=True)
class StoreSurvey:
    """What lies in a store, in the order of names."""

    folder: Path
    """Where it is, absolute."""
    models: tuple[StoredModel, ...] = ()
    projectors: tuple[Projector, ...] = ()
    """Those that lie beside models."""
    passed_over: tuple[PassedOver, ...] = ()
    vanished: tuple[Path, ...] = ()
    """Of the known files that should lie there: those that are gone."""


class ModelStore(ABC):
    """Where another tool keeps its models."""

    __slots__ = ()

    @abstractmethod
    async def survey(self, folder: Path | None, known: Collection[Path]) -> StoreSurvey:
        """List the models in ``folder``; ``None``: where that tool keeps them on this machine.

        Nothing there is trusted: what is damaged is passed over with its reason, and every
        read is bounded.

        Raises:
            InvalidRequest: ``folder`` is ``None``, and that tool has no store here.
            ModelFileMissing: there is no such folder.
            InvalidModelFile: it is no such store, or may not be read.
        """
