"""Which models somebody may use, and hears of."""

from __future__ import annotations

from gglib.domain.access import Grant
from gglib.domain.names import ResolvedName
from gglib.errors import AmbiguousModel, ModelNotFound
from gglib.services.models import ModelService

__all__ = ["allowed_model"]


async def allowed_model(models: ModelService, name: str, grant: Grant) -> ResolvedName:
    """Return what ``name`` means, if ``grant`` allows that model.

    Raises:
        Forbidden: it does not; also where there is no such model, which is not told apart.
        ModelNotFound, AmbiguousModel: there is no one such model, for somebody who may use all.
    """
    try:
        resolved = await models.resolve(name)
    except (ModelNotFound, AmbiguousModel):
        if grant.models is None:
            raise
        raise grant.refusal(name) from None
    if not grant.allows(resolved.model.name):
        raise grant.refusal(name)
    return resolved
