"""A hub of models: what it has, and where it gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import attrs

from gglib.domain.hub import FoundRepository, HubRevision

__all__ = ["FileLocation", "ModelHub"]


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    return dict(value)


@attrs.frozen(kw_only=True)
class FileLocation:
    """Where a file is fetched. ``headers`` are for the host of ``url`` alone: a secret is there."""

    url: str
    headers: Mapping[str, str] = attrs.field(
        factory=dict, converter=_headers, repr=False, hash=False
    )


class ModelHub(ABC):
    """Tells of repositories of model files. It fetches none of them.

    Every call raises ``HubAccessDenied`` where a token, or another one, is needed,
    ``HubUnavailable`` where the hub does not answer as it should now, and ``HubAnswerWrong`` for
    an answer that cannot be true.
    """

    __slots__ = ()

    @abstractmethod
    async def search(self, text: str, *, limit: int = 20) -> Sequence[FoundRepository]:
        """Return repositories with GGUF files that ``text`` finds, the most fetched first."""

    @abstractmethod
    async def revision(self, repository: str, revision: str | None = None) -> HubRevision:
        """Return the commit that ``revision`` is now, and the GGUF files there.

        ``revision`` is a branch, a tag or a commit; ``None`` is the main branch.

        Raises:
            RepositoryNotFound: there is no such repository (with close names), or revision.
        """

    @abstractmethod
    def location(self, repository: str, commit: str, path: str) -> FileLocation:
        """Return where a file of that commit is fetched. No request is made."""
