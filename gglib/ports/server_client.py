"""Questions to a running server that its clients do not ask."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gglib.domain.server_props import ServerProps

__all__ = ["ServerClient", "ServerProps"]


class ServerClient(ABC):
    """Talks to a running server beside the requests of its clients. Never in their path."""

    __slots__ = ()

    @abstractmethod
    async def props(
        self, base_url: str, api_key: str | None, *, ca_file: str | None = None
    ) -> ServerProps:
        """Return what the server at ``base_url`` tells of itself under ``GET /props``.

        The form is llama-server's. ``api_key`` is sent as a bearer token; ``None`` = nothing is.
        ``base_url`` and ``ca_file`` are as in a ``ProcessHandle``. A slash at the end of
        ``base_url`` changes nothing.

        - It takes 2 seconds at the most, however slowly the server answers.
        - What the server does not tell, or tells wrongly, is ``None``; the rest counts. No
          answer, a refusal, or one that is no such document: everything is ``None``. Nothing
          that a server does is raised as an error.
        - Of an answer that does not end it reads a few MiB at the most.
        - Over ``https`` the server proves who it is before the key is sent; one that is not
          trusted tells nothing.
        - The key goes to that address and nowhere else: no redirect is followed, and no proxy
          of the user's is asked.
        - When it returns, its connection is closed: an idle one would hold a server's thread.

        It does not hold up the event loop, may be called at the same time by several tasks,
        where a server that hangs delays no question to another, and a cancelled call does no
        harm to later ones.
        """
