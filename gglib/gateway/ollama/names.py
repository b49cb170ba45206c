"""The names by which Ollama's clients call models."""

from __future__ import annotations

from gglib.domain.names import ResolvedName
from gglib.errors import InvalidRequest, ModelNotFound
from gglib.services.models import ModelService

__all__ = ["find_model"]


async def find_model(models: ModelService, name: str) -> ResolvedName:
    """Return what a client of Ollama means by a name; ``:latest`` may be said or not.

    Raises:
        ModelNotFound, AmbiguousModel: there is no one such model.
        InvalidRequest: none is named.
    """
    if not name:
        raise InvalidRequest("model is required", "model")
    known = models.peek(name)
    if known is not None:
        return known
    try:
        return await models.resolve(name)
    except ModelNotFound:
        base = name.removesuffix(":latest")
        if base in ("", name):
            raise
        known = models.peek(base)
        if known is None:
            raise
        return known
