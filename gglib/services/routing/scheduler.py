"""Who is served when: a synchronous state machine without I/O, clock or log.

Events are method calls, in; actions are values, out, in the order in which they must be
carried out. One model is resident at a time. Its waiters share one start. While others wait,
a resident takes nothing new, ends what it has in flight, and yields to the model of the oldest
waiter; whoever waited for a model when it became ready is served before it yields again (the
gate), so that no swap is wasted and the order ABCABC becomes AABBCC.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from enum import StrEnum

import attrs

from gglib.errors import GglibError, QueueFull, ShuttingDown, Unloaded

__all__ = [
    "Action",
    "Grant",
    "Reject",
    "Resident",
    "ResidentPhase",
    "Scheduler",
    "Start",
    "Stop",
]


@attrs.frozen
class Start:
    """Start a server for the model; answer with ``server_ready`` or ``server_failed``."""

    model_id: int


@attrs.frozen
class Stop:
    """Stop the model's server, or call off its start; answer with ``server_stopped``."""

    model_id: int


@attrs.frozen
class Grant:
    """The ticket's request may go to its model's server."""

    ticket: int
    model_id: int


@attrs.frozen
class Reject:
    """The ticket's request will not be served."""

    ticket: int
    error: GglibError


Action = Start | Stop | Grant | Reject


class ResidentPhase(StrEnum):
    """Where the resident is."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@attrs.define
class Resident:
    """The model that has the memory, or is getting it, or is giving it back."""

    model_id: int
    phase: ResidentPhase = ResidentPhase.STARTING
    in_flight: set[int] = attrs.Factory(set)
    gate: set[int] = attrs.Factory(set)
    """Tickets that waited when it became ready, and still wait."""
    unloading: bool = False
    """Asked to go: yields as soon as nothing is in flight."""


@attrs.define
class _Waiters:
    model_name: str
    limit: int | None
    tickets: OrderedDict[int, None] = attrs.Factory(OrderedDict)


class Scheduler:
    """Decides. Every method returns the actions that follow; none waits."""

    __slots__ = ("_queue_limit", "_resident", "_shutting_down", "_ticket_model", "_waiting")

    def __init__(self, *, queue_limit: int = 256) -> None:
        self._queue_limit = queue_limit
        self._resident: Resident | None = None
        self._waiting: dict[int, _Waiters] = {}
        self._ticket_model: OrderedDict[int, int] = OrderedDict()
        self._shutting_down = False

    # What is

    @property
    def resident(self) -> Resident | None:
        """The model in memory, if any."""
        return self._resident

    def queued(self, model_id: int) -> int:
        """Return how many wait for the model."""
        waiters = self._waiting.get(model_id)
        return len(waiters.tickets) if waiters else 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is resident and nobody waits."""
        return self._resident is None and not self._ticket_model

    # What happens

    def request_arrived(
        self, ticket: int, model_id: int, model_name: str, *, limit: int | None = None
    ) -> list[Action]:
        """Take a request for a model; ``limit`` caps how many of them are in flight at once."""
        if self._shutting_down:
            return [Reject(ticket, ShuttingDown())]
        if self.try_grant(ticket, model_id, limit):
            return [Grant(ticket, model_id)]
        if len(self._ticket_model) >= self._queue_limit:
            return [Reject(ticket, QueueFull(model_name, self._queue_limit, 1.0))]
        waiters = self._waiting.get(model_id)
        if waiters is None:
            waiters = self._waiting[model_id] = _Waiters(model_name, limit)
        waiters.limit = limit
        waiters.tickets[ticket] = None
        self._ticket_model[ticket] = model_id
        return list(self._advance())

    def try_grant(self, ticket: int, model_id: int, limit: int | None) -> bool:
        """Grant a request that arrives now if it may go straight to its model's server."""
        resident = self._resident
        if (
            resident is None
            or resident.model_id != model_id
            or resident.phase is not ResidentPhase.READY
            or self._ticket_model
            or resident.unloading
            or self._shutting_down
            or (limit is not None and len(resident.in_flight) >= limit)
        ):
            return False
        resident.in_flight.add(ticket)
        return True

    def request_gone(self, ticket: int) -> list[Action]:
        """Forget a request whose client has left, wherever it stands."""
        if ticket in self._ticket_model:
            self._forget(ticket)
            return list(self._advance())
        return self.request_finished(ticket)

    def request_finished(self, ticket: int) -> list[Action]:
        """Count a granted request as done. Unknown tickets are those of a server that died."""
        resident = self._resident
        if resident is None or ticket not in resident.in_flight:
            return []
        resident.in_flight.discard(ticket)
        if not self._ticket_model and not resident.unloading:
            return []
        return list(self._advance())

    def server_ready(self, model_id: int) -> list[Action]:
        """The resident's server answers."""
        resident = self._expect(model_id, ResidentPhase.STARTING)
        if resident is None:
            return []
        resident.phase = ResidentPhase.READY
        waiters = self._waiting.get(model_id)
        resident.gate = set(waiters.tickets) if waiters else set()
        return list(self._advance())

    def server_failed(self, model_id: int, error: GglibError) -> list[Action]:
        """The resident's start failed: so do all who waited for it."""
        if self._expect(model_id, ResidentPhase.STARTING) is None:
            return []
        self._resident = None
        return [*self._reject_waiters(model_id, error), *self._advance()]

    def server_died(self, model_id: int) -> list[Action]:
        """A ready server is gone. Its waiters get a new one; what was in flight knows already."""
        if self._expect(model_id, ResidentPhase.READY) is None:
            return []
        self._resident = None
        return list(self._advance())

    def server_stopped(self, model_id: int) -> list[Action]:
        """The resident's server is gone, as asked."""
        if self._expect(model_id, ResidentPhase.STOPPING) is None:
            return []
        self._resident = None
        return list(self._advance())

    def unload(self, model_id: int, *, cut: bool = False) -> list[Action]:
        """Let the model go; its waiters get an error. ``cut``: do not wait for what is in flight.

        A later request starts it again.
        """
        waiters = self._waiting.get(model_id)
        name = waiters.model_name if waiters else ""
        actions: list[Action] = self._reject_waiters(model_id, Unloaded(name))
        resident = self._resident
        if resident is not None and resident.model_id == model_id:
            resident.unloading = True
            if cut and resident.phase is not ResidentPhase.STOPPING:
                resident.phase = ResidentPhase.STOPPING
                actions.append(Stop(model_id))
        return [*actions, *self._advance()]

    def shutdown(self) -> list[Action]:
        """Accept nothing more, reject who waits, and let the resident go when it is done."""
        self._shutting_down = True
        actions: list[Action] = []
        for model_id in list(self._waiting):
            actions += self._reject_waiters(model_id, ShuttingDown())
        if self._resident is not None:
            actions += self.unload(self._resident.model_id)
        return actions

    # How it is decided

    def _expect(self, model_id: int, phase: ResidentPhase) -> Resident | None:
        resident = self._resident
        if resident is None or resident.model_id != model_id or resident.phase is not phase:
            return None
        return resident

    def _forget(self, ticket: int) -> None:
        model_id = self._ticket_model.pop(ticket)
        waiters = self._waiting[model_id]
        del waiters.tickets[ticket]
        if not waiters.tickets:
            del self._waiting[model_id]
        if self._resident is not None:
            self._resident.gate.discard(ticket)

    def _reject_waiters(self, model_id: int, error: GglibError) -> list[Action]:
        waiters = self._waiting.get(model_id)
        tickets = deque(waiters.tickets) if waiters else deque[int]()
        for ticket in tickets:
            self._forget(ticket)
        return [Reject(ticket, error) for ticket in tickets]

    def _advance(self) -> Iterator[Action]:
        resident = self._resident
        if resident is None:
            if self._ticket_model and not self._shutting_down:
                oldest = next(iter(self._ticket_model.values()))
                self._resident = Resident(oldest)
                yield Start(oldest)
            return
        if resident.phase is ResidentPhase.STARTING:
            # Nobody waits for it any more: the load would only keep others waiting.
            if resident.model_id not in self._waiting:
                yield from self._stop(resident)
        elif resident.phase is ResidentPhase.READY:
            yield from self._serve(resident)

    def _serve(self, resident: Resident) -> Iterator[Action]:
        others_wait = len(self._ticket_model) > self.queued(resident.model_id)
        yields = others_wait or resident.unloading
        waiters = self._waiting.get(resident.model_id)
        if waiters is not None and not resident.unloading:
            for ticket in list(waiters.tickets):
                if waiters.limit is not None and len(resident.in_flight) >= waiters.limit:
                    break
                if yields and ticket not in resident.gate:
                    break
                self._forget(ticket)
                resident.in_flight.add(ticket)
                yield Grant(ticket, resident.model_id)
        if yields and not resident.in_flight and not resident.gate:
            yield from self._stop(resident)

    def _stop(self, resident: Resident) -> Iterator[Action]:
        resident.phase = ResidentPhase.STOPPING
        yield Stop(resident.model_id)
