"""Whether a model fits into this machine's memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio

from gglib.domain.memory_fit import MemoryFit, fit_memory
from gglib.domain.model import Model
from gglib.errors import ModelFileMissing
from gglib.ports.device_inventory import DeviceInventory
from gglib.services.intent import DEFAULT_ENGINES, config_for

__all__ = ["fit_model"]


async def fit_model(
    model: Model, devices: DeviceInventory, overrides: Mapping[str, Any] | None = None
) -> MemoryFit:
    """Return how a server of ``model`` would fit into what is free now; nothing is started.

    ``overrides`` are fields of ``ServerConfig`` that a model may set.

    Raises:
        InvalidValue: an override is no setting of a server, or out of its range.
        ModelFileMissing: the projector's or an adapter's file is not there.
    """
    config = config_for(model, overrides or {}, model.defaults.engine or DEFAULT_ENGINES[0])
    return fit_memory(
        model,
        config,
        await devices.survey(),
        projector_bytes=await _size([config.mmproj_path] if config.mmproj_path else []),
        adapter_bytes=await _size(each.path for each in config.lora_adapters),
    )


async def _size(paths: Iterable[Path]) -> int:
    """Return the bytes of all files together."""
    total = 0
    for path in paths:
        try:
            total += (await anyio.Path(path).stat()).st_size
        except OSError:
            raise ModelFileMissing(path) from None
    return total
