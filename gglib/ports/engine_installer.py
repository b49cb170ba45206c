"""Engines that gglib keeps itself: versions side by side, one of them in use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from gglib.ports.downloader import Downloader

__all__ = ["EngineArchive", "EngineInstaller", "InstallPlan", "InstalledEngine"]


@attrs.frozen(kw_only=True)
class EngineArchive:
    """A file that a version of an engine is made of."""

    name: str
    url: str
    sha256: str | None
    """``None``: nobody says what it is to be; it must not be unpacked."""
    size_bytes: int | None = None


@attrs.frozen(kw_only=True)
class InstallPlan:
    """What is to be fetched for a version."""

    engine: str
    version: str
    """Under this name it is kept, used and removed."""
    archives: tuple[EngineArchive, ...] = ()
    """The one with the program first; empty: the installer fetches by its own means."""


@attrs.frozen(kw_only=True)
class InstalledEngine:
    """A version that is there."""

    engine: str
    version: str
    path: Path
    """The program, or the package."""
    size_bytes: int
    installed_at: float
    """Unix seconds."""
    current: bool
    """Whether it is the one in use."""


class EngineInstaller(ABC):
    """Keeps the versions of one engine in the data directory."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The engine's name."""

    @property
    @abstractmethod
    def downloads(self) -> Path:
        """The folder for archives until they are unpacked; it exists."""

    @abstractmethod
    async def plan(
        self, version: str | None, variant: str | None, downloader: Downloader
    ) -> InstallPlan:
        """Return what a version (``None``: the one that gglib is tried with) is made of.

        ``variant``: what it computes on (``cpu``, ``cuda``, ``vulkan`` …); ``None`` = ``cpu``.

        Raises:
            EngineNotFound: there is no such version, or none for this machine.
            InvalidValue: that is no name of a version or variant.
            DownloadError: the releases could not be looked at.
        """

    @abstractmethod
    async def install(
        self, plan: InstallPlan, files: Sequence[Path], on_step: Callable[[str], None]
    ) -> InstalledEngine:
        """Unpack ``files``, the plan's archives in their order, and try what is in them.

        All of it, or nothing, whenever it ends: it is at its place only when it was seen to
        run here. It is not in use yet. A version that is there is replaced. ``on_step`` is
        told what is done, in words for people.

        Raises:
            EngineInstallFailed: it cannot be unpacked, or does not run here.
            NoSpace: the disk has no room for it.
        """

    @abstractmethod
    async def installed(self) -> list[InstalledEngine]:
        """Return the versions that are there, the newest first."""

    @abstractmethod
    async def use(self, version: str) -> InstalledEngine:
        """Have servers started with this version from now on.

        Raises:
            EngineNotFound: it is not there; names those that are.
        """

    @abstractmethod
    async def remove(self, version: str) -> InstalledEngine:
        """Delete a version; returns what it was.

        Raises:
            EngineNotFound: it is not there; names those that are.
            EngineInUse: a process runs it.
        """
