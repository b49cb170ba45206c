"""Where model files come from, and what they say of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import attrs

from gglib.domain.model import ModelFacts

__all__ = ["LocatedModel", "ModelSource"]


@attrs.frozen(kw_only=True)
class LocatedModel:
    """A model's files, found and read. ``paths``: absolute, every shard, the first one first."""

    paths: tuple[Path, ...]
    size_bytes: int
    facts: ModelFacts
    suggested_name: str


class ModelSource(ABC):
    """Locates model files."""

    __slots__ = ()

    @abstractmethod
    async def locate(self, reference: str) -> LocatedModel:
        """Find what ``reference`` (a path) names, and read what it says of itself.

        Reads headers only, bounded; never trusts a length in a file.

        Raises:
            ModelFileMissing: there is nothing, or a shard is missing.
            InvalidModelFile: it is a directory, unreadable, or not a model file.
        """
