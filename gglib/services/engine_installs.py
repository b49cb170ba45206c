"""Getting, choosing and removing the engines that gglib keeps itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import anyio
import attrs

from gglib.errors import DownloadFailed, EngineInstallFailed, EngineNotFound
from gglib.ports.downloader import Downloader, DownloadProgress
from gglib.ports.engine_installer import (
    EngineArchive,
    EngineInstaller,
    InstalledEngine,
    InstallPlan,
)

__all__ = ["EngineInstalls", "InstallWatcher", "Installation"]

#: How to get an engine without fetching one.
_WAYS = (
    "pip install 'gglib[llama]'",
    "put a llama-server on PATH, or name it by GGLIB_LLAMA_SERVER",
    "declare a command engine for a server of your own",
)


@attrs.frozen(kw_only=True)
class Installation:
    """What became of an order to install."""

    engine: InstalledEngine
    previous: str | None
    """The version that was in use before, if it was another; it is kept."""
    fetched: bool
    """False: that very version was there already."""


class InstallWatcher(Protocol):
    """Is told how an installation goes on."""

    def downloading(self, archive: EngineArchive, progress: DownloadProgress) -> None:
        """So much of an archive is there."""

    def step(self, what: str) -> None:
        """Something else is done."""


class EngineInstalls:
    """The engines that can be installed, by name."""

    def __init__(self, installers: Mapping[str, EngineInstaller], downloader: Downloader) -> None:
        self._installers = installers
        self._downloader = downloader

    async def install(
        self,
        engine: str,
        watcher: InstallWatcher,
        *,
        version: str | None = None,
        variant: str | None = None,
        sha256: str | None = None,
    ) -> Installation:
        """Fetch a version, verify it, try it, and have it used from now on.

        ``sha256``: of the archive with the program, where nobody else tells it, or to have it
        told twice.

        Raises:
            EngineNotFound: there is no such engine, or version.
            EngineInstallFailed: it cannot be verified, unpacked or run.
            DownloadError, NoSpace: it could not be fetched.
        """
        installer = self._installer(engine)
        try:
            plan = await installer.plan(version, variant, self._downloader)
            before = await installer.installed()
            there = any(each.version == plan.version for each in before)
            if not there:
                await self._get(installer, plan, sha256, watcher)
        except DownloadFailed as failure:
            # Offline, most often: another way may be open.
            name = version or "the usual version"
            raise EngineInstallFailed(
                engine, name, f"{failure}. Or {'; or '.join(_WAYS)}"
            ) from failure
        used = await installer.use(plan.version)
        previous = next((each.version for each in before if each.current), None)
        other = previous if previous != plan.version else None
        return Installation(engine=used, previous=other, fetched=not there)

    async def _get(
        self,
        installer: EngineInstaller,
        plan: InstallPlan,
        sha256: str | None,
        watcher: InstallWatcher,
    ) -> None:
        """Fetch what the plan names, and install it. What was fetched is kept for another try."""
        files = []
        for archive in [_verifiable(plan.engine, each) for each in _told(plan, sha256)]:
            path = installer.downloads / archive.name
            await self._downloader.fetch(
                archive.url,
                path,
                sha256=archive.sha256,
                size_bytes=archive.size_bytes,
                on_progress=partial(watcher.downloading, archive),
            )
            files.append(path)
        try:
            await installer.install(plan, files, watcher.step)
        finally:
            with anyio.CancelScope(shield=True):
                for path in files:
                    await anyio.Path(path).unlink(missing_ok=True)

    async def installed(self) -> list[InstalledEngine]:
        """Return every version of every engine that is kept here, the newest first."""
        return [each for one in self._installers.values() for each in await one.installed()]

    async def use(self, version: str, engine: str | None = None) -> InstalledEngine:
        """Have servers started with this version from now on; those that run are not touched.

        ``engine``: needed where two have a version of that name.

        Raises:
            EngineNotFound: it is not there.
        """
        return await (await self._holder(version, engine)).use(version)

    async def remove(self, version: str, engine: str | None = None) -> InstalledEngine:
        """Delete a version.

        Raises:
            EngineNotFound: it is not there.
            EngineInUse: a process runs it.
        """
        return await (await self._holder(version, engine)).remove(version)

    def _installer(self, engine: str) -> EngineInstaller:
        if engine not in self._installers:
            known = ", ".join(self._installers)
            raise EngineNotFound(engine, f"it cannot be installed; those that can: {known}")
        return self._installers[engine]

    async def _holder(self, version: str, engine: str | None) -> EngineInstaller:
        if engine is not None:
            return self._installer(engine)
        for installer in self._installers.values():
            if any(each.version == version for each in await installer.installed()):
                return installer
        return next(iter(self._installers.values()))


def _told(plan: InstallPlan, sha256: str | None) -> tuple[EngineArchive, ...]:
    """Return the archives with what the caller says of the first."""
    if sha256 is None or not plan.archives:
        return plan.archives
    first, *rest = plan.archives
    known = first.sha256
    if known is not None and known != sha256.lower():
        reason = f"--sha256 is {sha256}, and the release says {known} of {first.name}"
        raise EngineInstallFailed(plan.engine, first.name, reason)
    return (attrs.evolve(first, sha256=sha256.lower()), *rest)


def _verifiable(engine: str, archive: EngineArchive) -> EngineArchive:
    if archive.sha256 is None:
        reason = "nobody says what its sha256 is to be; give it with --sha256"
        raise EngineInstallFailed(engine, archive.name, reason)
    return archive
