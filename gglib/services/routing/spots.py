"""What models need on each of their runners, and of which runners nobody can tell."""

from __future__ import annotations

from copy import copy

from gglib.domain.model import Model
from gglib.errors import AdmissionError, BreakerOpen, GglibError, NotStarted
from gglib.ports.clock import Clock
from gglib.services.intent import is_served_alike
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.routing.slots import Slots
from gglib.services.routing.terms import Spot
from gglib.services.routing.trials import AWAY_S
from gglib.services.serving import ServingService

__all__ = ["Spots"]


class Spots:
    """Asks a ledger, runner by runner; without one, models need nothing."""

    def __init__(
        self, serving: ServingService, ledger: MemoryLedger | None, slots: Slots, clock: Clock
    ) -> None:
        self._serving = serving
        self._ledger = ledger
        self._slots = slots
        self._clock = clock
        self._unknown: dict[int, dict[str, GglibError]] = {}
        """Of models, by id, the runners that could not tell, and why."""
        self._ask_again_at: dict[int, float] = {}

    async def of(self, model: Model) -> list[Spot]:
        """Return what the model needs on each of its runners; those that cannot tell are left out.

        Raises:
            NotStarted: none can; of a model with one runner, why not.
        """
        spots: list[Spot] = []
        errors: dict[str, GglibError] = {}
        for runner in self._serving.runners_of(model):
            try:
                spots.append(await self._on(runner, model))
            except GglibError as error:
                errors[runner] = error
        self._unknown[model.id] = errors
        self._ask_again_at[model.id] = self._clock.monotonic() + AWAY_S
        if spots:
            return spots
        if len(errors) == 1:
            raise next(iter(errors.values()))
        raise NotStarted(model.name, _reasons(errors))

    def unknown(self, model: Model) -> dict[str, str]:
        """Return the runners that could not tell what the model needs there, and why."""
        return {runner: str(error) for runner, error in self._unknown.get(model.id, {}).items()}

    def is_to_ask_again(self, model: Model) -> bool:
        """Whether a runner could not tell, and it is time to ask it again: true once."""
        if not self._unknown.get(model.id):
            return False
        now = self._clock.monotonic()
        if now < self._ask_again_at[model.id]:
            return False
        self._ask_again_at[model.id] = now + AWAY_S
        return True

    def told(self, model: Model, error: GglibError) -> GglibError:
        """Return what one of those is told who waited: of each runner, why not."""
        unknown = self._unknown.get(model.id)
        if not unknown or isinstance(error, AdmissionError | BreakerOpen):
            return copy(error)
        if isinstance(error, NotStarted):
            return NotStarted(model.name, (*_reasons(unknown), *error.reasons))
        runners = self._serving.runners_of(model)
        tried = {runner: error for runner in runners if runner not in unknown}
        return NotStarted(model.name, _reasons({**unknown, **tried}))

    async def _on(self, runner: str, model: Model) -> Spot:
        if self._ledger is None:
            return Spot(runner=runner)
        for slot in self._slots.of(model):
            if slot.runner == runner and is_served_alike(slot.model, model):
                # What it has stays as it is; and so a further one will be.
                size = slot.context_size
                memory = await self._ledger.needs(model, size, runner=runner)
                return Spot(runner=runner, memory=memory, context_size=size)
        return await self._ledger.place(model, runner)


def _reasons(errors: dict[str, GglibError]) -> tuple[str, ...]:
    return tuple(f"on {runner}: {error}" for runner, error in errors.items())
