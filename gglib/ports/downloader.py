"""Files from elsewhere: fetched whole, or to be gone on with, never half."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import attrs

__all__ = ["Download", "DownloadProgress", "Downloader", "OnProgress", "partial_of"]


@attrs.frozen(kw_only=True)
class DownloadProgress:
    """How far a download is. ``done_bytes`` falls when what was there had to be thrown away."""

    done_bytes: int
    total_bytes: int | None
    """``None``: the server has not said."""
    kept_bytes: int = 0
    """What an earlier attempt had fetched already, of ``done_bytes``."""
    note: str | None = None
    """What is waited for, if nothing comes: for people."""


#: Is called in the task that fetches, after every piece; it must be quick.
OnProgress: TypeAlias = Callable[[DownloadProgress], None]


@attrs.frozen(kw_only=True)
class Download:
    """A file that has been fetched and is at its place."""

    path: Path
    size_bytes: int
    sha256: str
    """Of the whole file, in hexadecimal digits: what was asked for, or what was found."""
    etag: str | None = None
    """What the server called this version of it."""
    kept_bytes: int = 0
    """What was there from an earlier attempt, and not fetched again."""


class Downloader(ABC):
    """Fetches one file at a time; calls for different targets may run side by side."""

    __slots__ = ()

    @abstractmethod
    async def fetch(
        self,
        url: str,
        target: Path,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        max_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Download:
        """Fetch ``url`` to ``target``, whose folder exists; a file there is replaced at the end.

        Until everything is there and verified, it is in ``partial_of(target)``: what ends the
        call (an error, a cancellation, kill -9) leaves that, and the next call with the same
        ``url`` or ``sha256`` goes on from there, if the server still has the same version.
        Interruptions are waited out, and tried again, a bounded number of times.

        ``sha256``, ``size_bytes``: what the file must be. ``max_bytes``: more is not taken.
        ``headers`` go to the host of ``url`` alone, to no other that it redirects to.

        Raises:
            HashMismatch: what came is another file; nothing of it is kept.
            DownloadNotFound: the server has no such file.
            DownloadRefused: the server will not give it.
            DownloadFailed: it could not be fetched, now; what came is kept.
            NoSpace: the disk has no room for it.
        """

    @abstractmethod
    async def fetch_bytes(
        self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Return a small document, of ``max_bytes`` at the most.

        Raises:
            DownloadError: as ``fetch``.
        """


def partial_of(target: Path) -> Path:
    """Return where a file is until it is whole."""
    return target.with_name(target.name + ".partial")
