"""The names by which Ollama's clients call models."""

from __future__ import annotations

from gglib.domain.access import Grant
from gglib.domain.names import ResolvedName
from gglib.errors import AmbiguousModel, InvalidRequest, ModelNotFound
from gglib.services.models import ModelService

__all__ = ["find_model"]


async def find_model(models: ModelService, name: str, grant: Grant) -> ResolvedName:
    """Return what a client of Ollama means by a name; ``:latest`` may be said or not.

    Raises:
        Forbidden: ``grant`` does not allow it.
        ModelNotFound, AmbiguousModel: there is no one such model.
        InvalidRequest: none is named.
    """
    if not name:
        raise InvalidRequest("model is required", "model")
    known = models.peek(name)
    if known is None:
        try:
            known = await models.resolve(name)
        except AmbiguousModel:
            if grant.models is None:
                raise
        except ModelNotFound:
            base = name.removesuffix(":latest")
            known = None if base in ("", name) else models.peek(base)
            if known is None and grant.models is None:
                raise
    if known is None or not grant.allows(known.model.name):
        raise grant.refusal(name)
    return known
