"""Models that other tools keep: the part of ``ModelService`` that takes them in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from gglib.ports.model_store import ModelStore
from gglib.services.catalog_steps import ScanStep
from gglib.services.importing import import_models
from gglib.services.model_changes import ModelChanges

__all__ = ["ModelImports", "OpenStore"]

#: Holds what another tool keeps, by the name of its adapter.
OpenStore = Callable[[str], AbstractAsyncContextManager[ModelStore]]


class ModelImports(ModelChanges):
    """Changes models, and imports those of other tools."""

    _open_store: OpenStore

    async def import_models(
        self,
        store: str,
        folder: str | os.PathLike[str] | None = None,
        *,
        prune: bool = False,
        on_step: Callable[[ScanStep], None] | None = None,
    ) -> Sequence[ScanStep]:
        """Add the models that another tool keeps, where they lie, and take up what has changed.

        ``store``: ``ollama``, ``lm-studio`` or ``huggingface``; ``folder``: where that tool's
        models are, if not in its usual place. Names, projectors and settings that the tool has
        come along; what has no place here is told in the steps' ``left_out``. Models renamed or
        set up here stay so, unless the tool's own has changed. A file that is in the catalog by
        other means stays that model's. The rest is as for ``scan``.

        Raises:
            InvalidRequest: no ``folder`` is said, and the tool has none on this machine.
            ModelFileMissing, InvalidModelFile: ``folder`` is none of that tool's; nothing was done.
            AdapterError: no store of that name is installed.
        """
        await self.refresh()
        async with self._open_store(store) as opened:
            return await import_models(
                store,
                opened,
                None if folder is None else Path(folder),
                sources=self._sources,
                catalog=self._catalog,
                declared=tuple((self._declared or {}).values()),
                clock=self._clock,
                events=self._events,
                prune=prune,
                on_step=on_step,
            )
