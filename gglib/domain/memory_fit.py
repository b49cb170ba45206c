"""Whether a server fits into what is free, and how much of it goes to the GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.device import CPU, DeviceSurvey
from gglib.domain.memory import MemoryEstimate, estimate_memory, offloadable_layers
from gglib.domain.model import Model

__all__ = ["LEAST_CONTEXT", "MemoryFit", "fit_memory"]

_GIB = 2**30
_CONTEXT_STEP = 256
#: A context that nobody has chosen is a multiple of this, so that it is not another each time.
_CHOSEN_STEP = 1024
#: No smaller one is chosen, in tokens. Source: llama-server --help, build 11434 (--fit-ctx).
LEAST_CONTEXT = 4096


def _by_name(value: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class MemoryFit:
    """What a server needs beside what is free, in bytes by device."""

    estimate: MemoryEstimate
    formula: MemoryEstimate
    """The estimate before it was corrected by what was observed."""
    free: Mapping[str, int] = attrs.field(converter=_by_name, hash=False)
    full_context: int | None = None
    """The model's own context, in tokens, if the estimate is for a smaller one that has room."""
    fitting_context: int | None = None
    """Of one that does not fit: the largest context, in tokens, with which it would."""
    notes: tuple[str, ...] = ()
    """What could not be read of the devices; see ``DeviceSurvey``."""

    @property
    def missing(self) -> Mapping[str, int]:
        """By how much each device that has too little is short."""
        return {
            name: needed - self.free.get(name, 0)
            for name, needed in self.estimate.needs.items()
            if needed > self.free.get(name, 0)
        }

    @property
    def fits(self) -> bool:
        """Whether every device has enough."""
        return not self.missing

    @property
    def line(self) -> str:
        """The decision for people: ``5.1 GiB of 7.6 free, 33/33 layers, ctx 8192``."""
        estimate = self.estimate
        on_gpus = [name for name in estimate.needs if name != CPU]
        names = [*on_gpus, CPU]
        sizes = [
            f"{_gib(estimate.needs[name])} GiB of {_gib(self.free.get(name, 0))} free"
            + (f" on {name}" if on_gpus else "")
            for name in names
        ]
        layers = f"{estimate.gpu_layers if on_gpus else estimate.layers}/{estimate.layers} layers"
        context = f"ctx {estimate.context_size}"
        if self.full_context is not None:
            context += f" of {self.full_context}"
        words = [*sizes, layers + (" on GPU" if on_gpus else ""), context]
        line = ", ".join(words)
        if self.fits:
            return line
        if self.fitting_context is not None:
            return f"does not fit: {line}; ctx {self.fitting_context} would"
        return f"does not fit: {line}"


def fit_memory(
    model: Model,
    config: ServerConfig,
    survey: DeviceSurvey,
    *,
    projector_bytes: int = 0,
    adapter_bytes: int = 0,
    correct: Callable[[MemoryEstimate], MemoryEstimate] = lambda estimate: estimate,
) -> MemoryFit:
    """Return how a server of ``model`` fits into what the devices of ``survey`` have free.

    As many layers as fit go to GPUs, as an engine would choose, unless ``config.gpu_layers``
    says how many. Unless ``config.context_size`` says which, the context is the model's own;
    if that leaves no room for all layers on GPUs, or does not fit, it is the largest that does,
    of at least ``LEAST_CONTEXT`` tokens. ``correct`` changes estimates by what was observed
    before.
    """
    free = {device.name: device.free_bytes for device in survey.devices}

    def attempt(config: ServerConfig) -> MemoryFit:
        formula = estimate_memory(
            model,
            config,
            survey.accelerators,
            projector_bytes=projector_bytes,
            adapter_bytes=adapter_bytes,
        )
        return MemoryFit(estimate=correct(formula), formula=formula, free=free, notes=survey.notes)

    place = partial(_placed, model, attempt)
    fit = place(config)
    if config.context_size is None and fit.estimate.context_size > LEAST_CONTEXT:
        offloads = bool(survey.accelerators) and config.gpu_layers is None
        fit = _with_room(fit, lambda size: place(attrs.evolve(config, context_size=size)), offloads)
    if fit.fits:
        return fit

    def with_steps(steps: int) -> MemoryFit:
        return place(attrs.evolve(config, context_size=steps * _CONTEXT_STEP))

    # The last that fits is below the one asked for, which does not.
    steps = _last(lambda steps: with_steps(steps).fits, (fit.estimate.context_size - 1) // 256)
    context = steps * _CONTEXT_STEP if steps else None
    return attrs.evolve(fit, fitting_context=context)


def _with_room(
    fit: MemoryFit, with_context: Callable[[int], MemoryFit], offloads: bool
) -> MemoryFit:
    """Return ``fit``, or one with a smaller context, since nobody has chosen one.

    ``offloads``: layers go to GPUs, all of them if that is possible.
    """
    full = fit.estimate.context_size

    def is_whole(each: MemoryFit) -> bool:
        return each.fits and (not offloads or each.estimate.gpu_layers == each.estimate.layers)

    if is_whole(fit):
        return fit

    def largest(good: Callable[[MemoryFit], bool]) -> MemoryFit:
        least = LEAST_CONTEXT // _CHOSEN_STEP
        more = (full - 1) // _CHOSEN_STEP - least
        steps = _last(lambda more: good(with_context((least + more) * _CHOSEN_STEP)), more)
        return attrs.evolve(with_context((least + steps) * _CHOSEN_STEP), full_context=full)

    # As llama.cpp does: the context gives way before layers leave the GPU.
    whole = largest(is_whole)
    if is_whole(whole):
        return whole
    return fit if fit.fits else largest(lambda each: each.fits)


def _placed(
    model: Model, attempt: Callable[[ServerConfig], MemoryFit], config: ServerConfig
) -> MemoryFit:
    whole = attempt(config)
    if config.gpu_layers is not None or not whole.estimate.gpu_layers or whole.fits:
        return whole

    def with_layers(layers: int) -> MemoryFit:
        return attempt(attrs.evolve(config, gpu_layers=layers))

    most = _last(
        lambda layers: not set(with_layers(layers).missing) - {CPU}, offloadable_layers(model)
    )
    return with_layers(most)


def _last(good: Callable[[int], bool], high: int) -> int:
    """Return the largest number up to ``high`` that is good, or 0, if those below it are too."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if good(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _gib(size_bytes: int) -> str:
    size = size_bytes / _GIB
    return f"{size:.1f}" if size >= 0.1 or not size_bytes else f"{size:.2f}"
