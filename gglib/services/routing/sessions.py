"""Which server a session used last, so that it finds there what it has computed before."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Sessions"]


class Sessions:
    """Remembers the latest sessions, a bounded number of them.

    Only a hash of each is kept: clients choose their names, and how long those are. Two that
    share a hash share a server, which does no harm. What is said of a server that is gone is
    never heeded again, since numbers are not used twice; it fades with the other old ones.
    """

    __slots__ = ("_most", "_servers")

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._servers: OrderedDict[int, int] = OrderedDict()

    def server_of(self, model_id: int, session: str) -> int | None:
        """Return the number of the server that a session of a model used last."""
        return self._servers.get(hash((model_id, session)))

    def note(self, model_id: int, session: str, server: int) -> None:
        """Remember that a session uses a server."""
        key = hash((model_id, session))
        self._servers[key] = server
        self._servers.move_to_end(key)
        if len(self._servers) > self._most:
            self._servers.popitem(last=False)
