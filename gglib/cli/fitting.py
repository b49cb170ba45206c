"""How a model fits on each of its runners' machines: for ``gglib model fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from gglib.errors import GglibError, InvalidRequest

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.domain.memory_fit import MemoryFit
    from gglib.domain.model import Model

__all__ = ["FitThere", "best_of", "describe_fits", "fits_of"]


@attrs.frozen
class FitThere:
    """How a model fits where one of its runners runs it."""

    runner: str
    fit: MemoryFit | None
    """``None``: nobody can tell."""
    is_here: bool = True
    why_not: str | None = None
    """Why nobody can tell."""

    @property
    def fits(self) -> bool:
        """Whether it is known to fit."""
        return self.fit is not None and self.fit.fits

    @property
    def line(self) -> str:
        """That in one line."""
        if self.fit is None:
            return f"on {self.runner}: {self.why_not}"
        return self.fit.line if self.is_here else f"{self.fit.line}, on {self.runner}"


async def fits_of(parts: Composition, model: Model, overrides: Mapping[str, Any]) -> list[FitThere]:
    """Return how a model fits on each of its runners, in the order in which they are tried.

    Raises:
        GglibError: it cannot be told of any.
    """
    machines = await parts.machines()
    found: list[FitThere] = []
    failure: GglibError | None = None
    for runner in machines.names_for(model):
        try:
            found.append(await _fit_on(parts, runner, model, overrides))
        except GglibError as error:
            failure = failure or error
            found.append(FitThere(runner, None, why_not=str(error)))
    if failure is not None and all(each.fit is None for each in found):
        raise failure
    return found


def best_of(found: Sequence[FitThere]) -> FitThere:
    """Return the first where it fits; if it does nowhere, the first where that is known."""
    known = [each for each in found if each.fit is not None]
    return next((each for each in known if each.fits), known[0])


def describe_fits(model: Model, found: Sequence[FitThere]) -> dict[str, Any]:
    """Return how a model fits as plain data: on the best runner, and in a line on each."""
    best = best_of(found)
    return {
        **_described(model, best),
        "runner": best.runner,
        "runners": [
            {"runner": each.runner, "fits": each.fits, "line": each.line} for each in found
        ],
    }


async def _fit_on(
    parts: Composition, runner: str, model: Model, overrides: Mapping[str, Any]
) -> FitThere:
    from gglib.services.memory import correction_from, fit_model, within

    machines = await parts.machines()
    files, survey = machines.files(runner), await machines.survey(runner)
    model = await machines.as_it_lies(model, runner)
    is_here = survey is None
    if survey is None:
        survey = await (await parts.devices()).survey()
    elif not survey.devices:
        raise InvalidRequest(f"the memory of runner '{runner}' is not known", "name")
    survey = within(survey, parts.settings.routing.budgets, None if is_here else runner)
    runs = (await (await parts.catalog()).runs()).get(model.id, ())
    correct = correction_from(runs)
    fit = await fit_model(model, survey, overrides, correct=correct, files=files)
    return FitThere(runner, fit, is_here)


def _described(model: Model, there: FitThere) -> dict[str, Any]:
    found = there.fit
    assert found is not None
    estimate = found.estimate
    return {
        "model": model.name,
        "fits": found.fits,
        "context_size": estimate.context_size,
        "full_context": found.full_context,
        "fitting_context": found.fitting_context,
        "slots": estimate.slots,
        "layers": estimate.layers,
        "gpu_layers": estimate.gpu_layers,
        "source": estimate.source,
        "devices": [
            {
                "name": device if there.is_here else f"{there.runner}/{device}",
                "needed_bytes": parts.total_bytes,
                "free_bytes": found.free.get(device, 0),
                "weights_bytes": parts.weights_bytes,
                "kv_bytes": parts.kv_bytes,
                "compute_bytes": parts.compute_bytes,
                "other_bytes": parts.other_bytes,
            }
            for device, parts in estimate.devices.items()
        ],
        "notes": list(found.notes),
    }
