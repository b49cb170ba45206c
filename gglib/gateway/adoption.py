"""Servers that another process started, taken over while they are ready: no reload."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from gglib.domain.model import Model
from gglib.domain.ownership import ServerRecord
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

    One that was started by hand (``gglib start``) is never stopped here: it is pinned, or, if it
    cannot be taken over, runs on beside. One that fails does not keep the others from being
    taken over.
    """
    known = {model.id: model for model in await models.list()}
    for record in records:
        # One may have ended meanwhile, or not be to be stopped, or its runner is a stranger's with
        # a bug: its row stays then, and doctor shows it.
        with suppress(Exception):
            await _adopt(record, known.get(record.config.model_id), serving, router)


async def _adopt(
    record: ServerRecord, model: Model | None, serving: ServingService, router: Router
) -> None:
    if model is None:
        await serving.discard(record)
        return
    server = await serving.adopt(record, model)
    if server is None:
        return
    if not await router.take_over(server):
        await serving.let_go(server)
    elif server.by_hand:
        await router.set_pinned(model, pinned=True)
