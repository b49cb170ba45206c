"""Whether a model fits into a machine's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.device import DeviceSurvey
from gglib.domain.memory import MemoryEstimate, estimate_memory
from gglib.domain.memory_fit import MemoryFit, fit_memory
from gglib.domain.memory_observed import MemoryObservation, corrected_estimate
from gglib.domain.model import Model
from gglib.domain.model_run import ModelRun
from gglib.errors import ModelFileMissing
from gglib.ports.far_files import FarFiles, Missing
from gglib.services.intent import DEFAULT_ENGINES, config_for
from gglib.services.machines import device_of

__all__ = ["correction_from", "estimate_server", "fit_model", "within"]


def _as_it_is(estimate: MemoryEstimate) -> MemoryEstimate:
    return estimate


def correction_from(runs: Iterable[ModelRun]) -> Callable[[MemoryEstimate], MemoryEstimate]:
    """Return how estimates of a model are changed by what its earlier servers took."""
    seen: dict[str, list[MemoryObservation]] = {}
    for run in runs:
        for device, observation in run.memory.items():
            seen.setdefault(device, []).append(observation)
    return lambda estimate: corrected_estimate(estimate, seen)


async def fit_model(
    model: Model,
    survey: DeviceSurvey,
    overrides: Mapping[str, Any] | None = None,
    *,
    correct: Callable[[MemoryEstimate], MemoryEstimate] = _as_it_is,
    files: FarFiles | None = None,
) -> MemoryFit:
    """Return how a server of ``model`` would fit into what ``survey`` says is free.

    ``overrides`` are fields of ``ServerConfig`` that a model may set; ``correct`` changes an
    estimate by what was seen before; ``files`` are those of the machine where it would run, if
    that is another one.

    Raises:
        InvalidValue: an override is no setting of a server, or out of its range.
        ModelFileMissing: the projector's or an adapter's file is not there.
    """
    config = config_for(model, overrides or {}, model.defaults.engine or DEFAULT_ENGINES[0])
    projector_bytes, adapter_bytes = await _files_beside(config, files)
    return fit_memory(
        model,
        config,
        survey,
        projector_bytes=projector_bytes,
        adapter_bytes=adapter_bytes,
        correct=correct,
    )


async def estimate_server(
    model: Model, config: ServerConfig, survey: DeviceSurvey
) -> MemoryEstimate:
    """Return what a server of ``model`` that is started as ``config`` says takes, uncorrected.

    Raises:
        ModelFileMissing: the projector's or an adapter's file is not there.
    """
    projector_bytes, adapter_bytes = await _files_beside(config)
    return estimate_memory(
        model,
        config,
        survey.accelerators,
        projector_bytes=projector_bytes,
        adapter_bytes=adapter_bytes,
    )


def within(
    survey: DeviceSurvey, budgets: Mapping[str, int], runner: str | None = None
) -> DeviceSurvey:
    """Return what there is for models where a person has set budgets, by device.

    ``runner``: the devices are those of its machine, which is another one.
    """
    if runner is not None:
        budgets = {
            each.name: budgets[name]
            for each in survey.devices
            if (name := device_of(runner, each.name)) in budgets
        }
    devices = [
        attrs.evolve(each, free_bytes=min(each.free_bytes, budgets.get(each.name, each.free_bytes)))
        for each in survey.devices
    ]
    return attrs.evolve(survey, devices=devices)


async def _files_beside(config: ServerConfig, files: FarFiles | None = None) -> tuple[int, int]:
    """Return the bytes of the projector's file, and of all adapters' files."""
    return (
        await _size([config.mmproj_path] if config.mmproj_path else [], files),
        await _size([each.path for each in config.lora_adapters], files),
    )


async def _size(paths: Sequence[Path], files: FarFiles | None) -> int:
    """Return the bytes of all files together."""
    total = 0
    if files is not None:
        for path, found in zip(paths, await files.look([*map(str, paths)]), strict=True):
            if isinstance(found, Missing):
                raise ModelFileMissing(path)
            total += found.mark.size_bytes
        return total
    for path in paths:
        try:
            total += (await anyio.Path(path).stat()).st_size
        except OSError:
            raise ModelFileMissing(path) from None
    return total
