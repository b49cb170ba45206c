"""What the scheduler tells its driver to do, as values."""

from __future__ import annotations

import attrs

from gglib.errors import GglibError
from gglib.services.routing.state import Closing

__all__ = ["Action", "Await", "Grant", "Reject", "Start", "Stop"]


@attrs.frozen
class Start:
    """Start a server of the model; answer with ``server_ready`` or ``server_failed``.

    ``server`` is this start's number, by which every later event and action names it;
    ``runner`` the one of the model's that is to run it.
    """

    server: int
    model_id: int
    runner: str | None = None


@attrs.frozen
class Stop:
    """Stop the server, or call its start off; answer with ``server_stopped``.

    ``cut``: requests are in flight on it, and end with it, for that reason.
    """

    server: int
    model_id: int
    cut: Closing | None = None
    spares_by_hand: bool = False
    """Nobody asked for its end: one that was started by hand runs on by itself."""


@attrs.frozen
class Await:
    """There is no way to the server; answer with ``server_back`` when there is one again."""

    server: int


@attrs.frozen
class Grant:
    """The ticket's request may go to the server; answer with ``request_finished``."""

    ticket: int
    server: int


@attrs.frozen
class Reject:
    """The ticket's request will not be served."""

    ticket: int
    error: GglibError


Action = Start | Stop | Await | Grant | Reject
