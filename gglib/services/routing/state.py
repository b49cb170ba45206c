"""What the scheduler keeps of models and servers between two events."""

from __future__ import annotations

from collections import Counter, deque
from enum import StrEnum

import attrs

from gglib.services.routing.line import Line, Waiter
from gglib.services.routing.terms import ModelTerms
from gglib.services.routing.trials import Trials

__all__ = [
    "Closing",
    "ModelState",
    "Note",
    "NoteKind",
    "Resident",
    "ResidentPhase",
    "Swap",
    "Tally",
]

_NOTES_KEPT = 16


class ResidentPhase(StrEnum):
    """Where a resident is."""

    STARTING = "starting"
    READY = "ready"
    AWAY = "away"
    """It was ready, and there is no way to it now. Only where its model has another runner."""
    STOPPING = "stopping"
    GONE = "gone"


class Closing(StrEnum):
    """Why a ready resident takes nothing more."""

    SWAP = "swap"
    """Another model gets its place."""
    UNLOAD = "unload"
    DRAIN = "drain"
    """As unload, but whoever waited already is served first."""
    CHANGED = "changed"
    """Its model is another one now, or none. As drain, but nobody asked for it."""
    EXPIRED = "expired"
    """Nobody used it for as long as it may idle."""
    UNHEALTHY = "unhealthy"
    """It no longer answers."""
    SURPLUS = "surplus"
    """There was no way to it, and when there was one again others had taken its place."""
    SHUTDOWN = "shutdown"


class NoteKind(StrEnum):
    """What was decided about a model, or happened to it."""

    STARTED = "started"
    READY = "ready"
    TAKEN_OVER = "taken_over"
    EVICTED = "evicted"
    UNLOADED = "unloaded"
    CHANGED = "changed"
    EXPIRED = "expired"
    CALLED_OFF = "called_off"
    FAILED = "failed"
    DIED = "died"
    UNHEALTHY = "unhealthy"
    AWAY = "away"
    BACK = "back"
    REFUSED = "refused"


@attrs.frozen
class Note:
    """One decision: when, what, and because of which other model, or for what reason."""

    at: float
    kind: NoteKind
    because: str | None = None
    runner: str | None = None
    """Where, if its model has several runners."""


#: Looked at for every request: an enum takes a while to name its members.
_READY, _AWAY = ResidentPhase.READY, ResidentPhase.AWAY


@attrs.define(eq=False)
class Resident:
    """A server that has memory, or is getting it, or is giving it back."""

    server: int
    model: ModelState
    terms: ModelTerms
    """Its model's, on the runner where it is."""
    started_at: float
    phase: ResidentPhase = ResidentPhase.STARTING
    slots: int | None = None
    """How many requests the server works on at once; ``None``: any number."""
    capacity: int | None = None
    """What it may have in flight: its slots, or the model's limit, if that is less."""
    in_flight: int = 0
    levels: dict[int, int] = attrs.Factory(dict)
    """How many are in flight, by priority."""
    gate: int = -1
    """Arrivals up to this number are served before it yields to its equals."""
    ready_at: float | None = None
    used_at: float = 0.0
    """When it became ready, was granted, or last ended an answer."""
    closing: Closing | None = None
    closing_since: float = 0.0
    swap: Swap | None = None
    """For which it closes."""
    claim_due_at: float | None = None
    """When it must stop taking requests of ``claim_priority`` and less, but for the gate."""
    claim_priority: int = 0
    claimant: str | None = None
    stopping_since: float = 0.0
    requests: int = 0
    """How many it was given."""

    def set_capacity(self) -> None:
        """Find out how many requests it may have in flight."""
        limits = [limit for limit in (self.model.terms.limit, self.slots) if limit is not None]
        self.capacity = min(limits, default=None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nobody waits for what it could serve."""
        return not self.in_flight and (not self.model.line or self.phase is _AWAY)

    @property
    def is_away(self) -> bool:
        """Whether there is no way to it."""
        return self.phase is _AWAY

    @property
    def is_full(self) -> bool:
        """Whether it has as many requests as it can serve."""
        return self.capacity is not None and self.in_flight >= self.capacity

    @property
    def is_leaving(self) -> bool:
        """Whether it is on its way out."""
        return self.closing is not None or self.phase is ResidentPhase.STOPPING

    @property
    def takes_requests(self) -> bool:
        """Whether it is ready and not on its way out."""
        return self.phase is ResidentPhase.READY and self.closing is None

    def level(self) -> int | None:
        """Return the highest priority of what is in flight or waits; ``None`` when idle."""
        head = None if self.phase is _AWAY else self.model.line.head()
        waiting = () if head is None else (head.priority,)
        return max((*self.levels, *waiting), default=None)

    def admits(self, priority: int, now: float) -> bool:
        """Whether it may take a request that arrives now and finds nobody ahead."""
        return (
            self.phase is _READY
            and self.closing is None
            and (self.capacity is None or self.in_flight < self.capacity)
            and (
                self.claim_due_at is None
                or self.claim_due_at > now
                or self.claim_priority < priority
            )
        )

    def next_in_line(self) -> Waiter | None:
        """Return who is next of those that it still serves, room or not."""
        if self.phase is _AWAY:
            return None
        if self.closing is None:
            return self.model.line.head()
        if self.closing in (Closing.DRAIN, Closing.CHANGED):
            return self.model.line.head_up_to(self.gate)
        return None

    def may_take(self, waiter: Waiter, now: float) -> bool:
        """Whether it may take that one, which is next."""
        if self.is_full and not waiter.loads_only:
            return False
        if self.claim_due_at is None or self.claim_due_at > now:
            return True
        if self.claim_priority == waiter.priority:
            return waiter.number <= self.gate
        return self.claim_priority < waiter.priority

    def gate_holds(self, priority: int) -> bool:
        """Whether somebody of that priority waits who was there when it became ready."""
        oldest = self.model.line.oldest(priority)
        return oldest is not None and oldest.number <= self.gate


@attrs.define(eq=False)
class Swap:
    """A place that is being made for a model."""

    terms: ModelTerms
    """The model's, on the runner where it gets it."""
    victims: list[Resident]
    """Who is still there of those who go for it."""
    evicts: bool
    """Whether anybody went for it."""


@attrs.define(eq=False)
class ModelState:
    """A model that was asked for: who waits for it, and what was learnt about it."""

    terms: ModelTerms
    pinned: bool = False
    retired: bool = False
    """Whether nobody can ask for it any more: it goes when whoever waits is served."""
    line: Line = attrs.Factory(Line)
    residents: list[Resident] = attrs.Factory(list)
    """Its servers, the oldest first."""
    away: int = 0
    """To how many of them there is no way."""
    swap: Swap | None = None
    """The place that is being made for it."""
    due_at: float | None = None
    """When those in its way will yield to it."""
    load_s: float | None = None
    stop_s: float | None = None
    trials: Trials = attrs.Factory(Trials)
    crashes: int = 0
    """Servers in a row that died soon after they were ready."""
    not_before: float = 0.0
    lost: str | None = None
    """How it lost a server in whose place none was started yet: ``died`` or ``unhealthy``."""
    retried: bool = False
    """Whether its start, which died for want of memory, is being tried once more."""
    blocked_by: tuple[str, ...] = ()
    notes: deque[Note] = attrs.Factory(lambda: deque(maxlen=_NOTES_KEPT))
    keep_s: float | None = None
    """How long its servers may idle, as somebody asked since they came; infinity = for ever."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits, and no server of it is there or on its way."""
        return len(self.residents) == self.away and bool(self.line)

    @property
    def servers(self) -> int:
        """How many servers it has, but for those to which there is no way."""
        return len(self.residents) - self.away

    @property
    def wants_more(self) -> bool:
        """Whether somebody waits because every server it has is full, and it may have another.

        One that starts, or that holds back for another model, is waited for.
        """
        if len(self.residents) - self.away >= self.terms.replicas or not self.line:
            return False
        at_work = [each for each in self.residents if not (each.is_leaving or each.is_away)]
        return bool(at_work) and all(
            each.phase is ResidentPhase.READY and each.is_full for each in at_work
        )

    @property
    def starting(self) -> Resident | None:
        """The server of it that starts: there is never more than one."""
        for resident in self.residents:
            if resident.phase is ResidentPhase.STARTING:
                return resident
        return None

    @property
    def expected_load_s(self) -> float:
        """How long its next load will take, as far as is known."""
        return self.terms.expected_load_s if self.load_s is None else self.load_s

    def note(self, at: float, kind: NoteKind, because: str | None = None) -> None:
        """Remember a decision."""
        self.notes.append(Note(at, kind, because))

    def note_at(
        self, runner: str | None, at: float, kind: NoteKind, because: str | None = None
    ) -> None:
        """Remember a decision, and where it was if the model has several runners."""
        self.notes.append(Note(at, kind, because, runner if self.terms.elsewhere else None))


@attrs.define(eq=False)
class Tally:
    """What has happened so far, counted."""

    hits: int = 0
    """Requests whose model was ready when they arrived."""
    misses: int = 0
    """Requests that had to wait for a load."""
    loads: int = 0
    failed: Counter[str] = attrs.Factory(Counter)
    """Loads that failed, by model."""
    swaps: int = 0
    """Loads for which others had to go."""
    restarts: Counter[tuple[str, str]] = attrs.Factory(Counter)
    """Starts of a model in place of a server that was lost: by model, and by how it was."""
    evictions: Counter[str] = attrs.Factory(Counter)
    """Servers that were ready and are gone, by reason: a ``Closing``, or ``died``."""

    @property
    def failures(self) -> int:
        """Return how many loads failed."""
        return self.failed.total()

    @property
    def hit_rate(self) -> float:
        """Return the part of all requests that were hits; 0.0 when there were none."""
        return self.hits / (self.hits + self.misses) if self.hits else 0.0
