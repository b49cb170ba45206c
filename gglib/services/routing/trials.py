"""How starts of a model have gone on each of its runners, and where the next one is tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from gglib.errors import GglibError, NodeUnreachable, NotStarted
from gglib.services.routing.terms import ModelTerms

__all__ = ["AWAY_S", "Trial", "Trials"]

#: A machine that could not be reached is tried after the others for so long.
AWAY_S = 15.0
_BREAKER_MAX_S = 60.0


@attrs.define(eq=False)
class Trial:
    """How starts have gone on one runner."""

    failures: int = 0
    """In a row, but for those that found nobody there."""
    refused_until: float = 0.0
    why_not: GglibError | None = None
    """Why the last one failed, or why none could be tried; ``None``: it went well."""
    tried: bool = False
    """Whether one has failed those who wait now."""


class Trials:
    """The trials of one model, by runner."""

    __slots__ = ("_by_runner",)

    def __init__(self) -> None:
        self._by_runner: dict[str | None, Trial] = {}

    def __bool__(self) -> bool:
        return bool(self._by_runner)

    def on(self, runner: str | None) -> Trial:
        """Return the trial on a runner."""
        return self._by_runner.setdefault(runner, Trial())

    def failed(self, runner: str | None, error: GglibError, now: float, *, wanted: bool) -> None:
        """Note a start that failed; ``wanted``: it failed somebody who waits.

        What is not reached tells nothing of the model: it may be there again at any moment.
        """
        trial = self.on(runner)
        trial.why_not = error
        trial.tried = wanted
        if isinstance(error, NodeUnreachable):
            return
        trial.failures += 1
        pause_s = 2.0 ** min(trial.failures - 1, 10)
        trial.refused_until = now + min(_BREAKER_MAX_S, pause_s)

    def succeeded(self, runner: str | None) -> None:
        """Note a start that went well."""
        self._by_runner.pop(runner, None)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Who waits from now on has been failed by nobody."""
        for trial in self._by_runner.values():
            trial.tried = False

    def forgive(self) -> None:
        """Have nothing be refused for what failed before."""
        for trial in self._by_runner.values():
            trial.refused_until = 0.0

    def refused_until(self, terms: ModelTerms) -> float:
        """Return when the first of a model's runners may be tried again."""
        return min(self._refused_until(spot.runner) for spot in terms.spots)

    def untried(
        self,
        terms: ModelTerms,
        shunned: Iterable[str | None],
        away: Mapping[str | None, float],
        now: float,
    ) -> tuple[list[ModelTerms], float]:
        """Return where a server may be tried for those who wait, and when to look again.

        The best first: in the order of the model's runners, but those after the others that are
        ``away`` or, if all are, refused. ``shunned``: where it is not tried at all. When to look
        again: when one may be tried that is refused now; infinity if there are none.
        """
        found = [
            spot for spot in terms.spots if spot.runner not in shunned and not self._tried(spot)
        ]
        again_at = float("inf")
        refused = [spot for spot in found if self._refused_until(spot.runner) > now]
        # Who waits was let in for the sake of the others: those decide, even if one of them is
        # away, or nothing would hold back a start that fails for as long as it is.
        if refused and self.refused_until(terms) <= now:
            again_at = min(self._refused_until(spot.runner) for spot in refused)
            found = [spot for spot in found if spot not in refused]
        if len(found) > 1:
            found.sort(
                key=lambda spot: (
                    self._refused_until(spot.runner) > now,
                    away.get(spot.runner, 0.0) > now,
                )
            )
        return found, again_at

    def further(
        self,
        terms: ModelTerms,
        held: Iterable[str | None],
        away: Mapping[str | None, float],
        now: float,
    ) -> tuple[list[ModelTerms], float]:
        """Return where a further server may be tried, the best first, and when to look again.

        Runners that have none of it yet (``held``) are the first. When to look again: when one
        of those may be tried that may not now; infinity if there are none.
        """
        held = [*held]
        again_at = float("inf")
        found = []
        for spot in terms.spots:
            not_before = max(self._refused_until(spot.runner), away.get(spot.runner, 0.0))
            if not_before > now:
                again_at = min(again_at, not_before)
            else:
                found.append(spot)
        if len(found) > 1:
            found.sort(key=lambda spot: held.count(spot.runner))
        return found, again_at

    def why_not(self, terms: ModelTerms) -> GglibError:
        """Return why there is no server: one runner's reason, or each one's."""
        errors = [
            (spot.runner or "", trial.why_not)
            for spot in terms.spots
            if (trial := self._by_runner.get(spot.runner)) is not None and trial.why_not is not None
        ]
        if len(errors) == 1:
            return errors[0][1]
        return NotStarted(terms.name, tuple(f"on {runner}: {error}" for runner, error in errors))

    def reasons(self) -> dict[str, str]:
        """Return why the latest start on a runner failed, of those where it did."""
        return {
            runner: str(trial.why_not)
            for runner, trial in self._by_runner.items()
            if runner is not None and trial.why_not is not None
        }

    def _tried(self, spot: ModelTerms) -> bool:
        trial = self._by_runner.get(spot.runner)
        return trial is not None and trial.tried

    def _refused_until(self, runner: str | None) -> float:
        trial = self._by_runner.get(runner)
        return 0.0 if trial is None else trial.refused_until
