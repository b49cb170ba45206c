"""What servers have taken of memory: seen while they run, and remembered of those that ended."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from gglib.domain.device import CPU
from gglib.domain.memory import MemoryEstimate
from gglib.domain.memory_observed import MemoryObservation
from gglib.domain.model_run import KEPT_RUNS, ModelRun
from gglib.services.memory import correction_from
from gglib.services.serving import RunningServer

__all__ = ["MemoryRuns"]


class MemoryRuns:
    """By model, its newest runs, and how its estimates are corrected for them.

    Devices go by the names that they have on their machine: ``cpu``, ``cuda0``.
    """

    def __init__(self) -> None:
        self._formula: dict[tuple[int, str], MemoryEstimate] = {}
        """Of each model and runner, what its estimate was before it was corrected."""
        self._runs: defaultdict[int, deque[ModelRun]] = defaultdict(lambda: deque(maxlen=KEPT_RUNS))
        self._peaks: dict[str, Mapping[str, int]] = {}
        """The most that a running server was seen to have, by its id and by device."""

    def recall(self, runs: Mapping[int, Sequence[ModelRun]]) -> None:
        """Take up what was remembered, the oldest first."""
        for model_id, kept in runs.items():
            self._runs[model_id].extend(kept)

    def estimated(self, model_id: int, runner: str, formula: MemoryEstimate) -> None:
        """Note what a model's servers on a runner are held to need, uncorrected, from now on."""
        self._formula[model_id, runner] = formula

    def correction(self, model_id: int) -> Callable[[MemoryEstimate], MemoryEstimate]:
        """Return how estimates of a model are changed by what its servers took."""
        return correction_from(self._runs[model_id])

    def peak(self, server_id: str) -> int | None:
        """Return the most of its machine's own memory that a server was seen to have."""
        return self._peaks.get(server_id, {}).get(CPU)

    def see(self, server: RunningServer, found: Mapping[str, int], at: float) -> bool:
        """Note what a running server has; return whether its model needs more than was thought.

        ``at``: Unix seconds.
        """
        server_id, model_id = server.server_id, server.model.id
        before = self._peaks.get(server_id, {})
        most = {name: max(before.get(name, 0), found.get(name, 0)) for name in {**before, **found}}
        self._peaks[server_id] = most
        formula = self._formula.get((model_id, server.record.runner))
        if formula is None or formula.source == "stated":
            return False
        held = self.correction(model_id)(formula).needs
        if not any(
            size > before.get(name, 0) and size > held[name]
            for name, size in found.items()
            if name in held
        ):
            return False
        self._runs[model_id].append(_run(formula, found, 0, at))
        return True

    def end(self, server: RunningServer, requests: int, at: float) -> ModelRun:
        """Return what is to be remembered of a server that has ended. ``at``: Unix seconds."""
        formula = self._formula.get((server.model.id, server.record.runner))
        run = _run(formula, self._peaks.pop(server.server_id, {}), requests, at)
        self._runs[server.model.id].append(run)
        return run

    def most_used(self) -> list[int]:
        """Return the models that were used in their remembered runs, the most used first."""
        used = {
            model_id: sum(run.requests for run in runs) for model_id, runs in self._runs.items()
        }
        ranked = sorted(used, key=lambda model_id: (-used[model_id], model_id))
        return [model_id for model_id in ranked if used[model_id]]


def _run(
    formula: MemoryEstimate | None, observed: Mapping[str, int], requests: int, at: float
) -> ModelRun:
    memory = {}
    if formula is not None and formula.source != "stated":
        memory = {
            name: MemoryObservation(
                estimated_bytes=max(1, formula.needs[name]), observed_bytes=size
            )
            for name, size in observed.items()
            if name in formula.needs
        }
    return ModelRun(ended_at=at, requests=requests, memory=memory)
