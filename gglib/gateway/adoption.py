"""Servers that another process started, taken over while they are ready: no reload."""

from __future__ import annotations

from collections.abc import Iterable

from gglib.domain.ownership import ServerRecord
from gglib.errors import GglibError
from gglib.services.models import ModelService
from gglib.services.routing.router import Router
from gglib.services.serving import ServingService

__all__ = ["adopt_all"]


async def adopt_all(
    records: Iterable[ServerRecord],
    *,
    models: ModelService,
    serving: ServingService,
    router: Router,
) -> None:
    """Make residents of the servers on record; one that cannot be is stopped.

    Not those that were started by hand (``gglib start``): they run on beside, and those that are
    taken over are pinned, since they are not the gateway's to evict. One that fails does not
    keep the others from being taken over.
    """
    known = {model.id: model for model in await models.list()}
    for record in records:
        model = known.get(record.config.model_id)
        try:
            if model is None:
                await serving.discard(record)
                continue
            server = await serving.adopt(record, model)
            if server is not None and not router.take_over(server):
                await serving.let_go(server)
            elif server is not None and server.by_hand:
                router.set_pinned(model, pinned=True)
        except GglibError:
            # It has ended meanwhile, or cannot be stopped: its row stays, and doctor shows it.
            continue
