"""llama-server out of llama.cpp's releases, tried before it is put in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.from_thread
import anyio.to_thread

from gglib.errors import EngineInstallFailed, NoSpace
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.downloader import Downloader
from gglib.ports.engine_installer import EngineInstaller, InstalledEngine, InstallPlan
from gglib_adapters.engines.llama_probe import ProbeFailed, describe
from gglib_adapters.engines.llama_releases import (
    DEFAULT_RELEASE_URL,
    DEFAULT_TAG,
    Releases,
    this_machine,
)
from gglib_adapters.engines.llama_server import INSTALLED_AS
from gglib_adapters.engines.settings import optional_text, refuse_unknown
from gglib_adapters.engines.unpacking import Bounds, UnpackFailed, unpack
from gglib_adapters.engines.versions import Versions

__all__ = ["RELEASE_URL_VARIABLE", "LlamaServerInstaller", "open_llama_server_installer"]

#: Where releases are fetched from; stronger than the setting ``release_url``.
RELEASE_URL_VARIABLE = "GGLIB_LLAMA_RELEASE_URL"

_BINARY = "llama-server.exe" if os.name == "nt" else "llama-server"
_CPU = "cpu"
#: What archives of libraries become: measured 2.3 to 3.4 times as much, and the archive itself.
_ROOM_FACTOR = 5


class LlamaServerInstaller(EngineInstaller):
    """Keeps releases of llama.cpp, by tag and variant: ``b10621``, ``b10621-vulkan``."""

    __slots__ = ("_cache", "_clock", "_name", "_release_url", "_versions")

    def __init__(self, name: str, data_dir: Path, release_url: str, clock: Clock) -> None:
        self._name = name
        self._cache = data_dir / "cache"
        self._versions = Versions.of(INSTALLED_AS, data_dir)
        self._release_url = release_url
        self._clock = clock

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._name

    @property
    def downloads(self) -> Path:
        """The folder for archives until they are unpacked."""
        folder = self._versions.folder / ".downloads"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    async def plan(
        self, version: str | None, variant: str | None, downloader: Downloader
    ) -> InstallPlan:
        """See ``EngineInstaller``; looks at the releases only for what is not known by heart."""
        tag, variant = version or DEFAULT_TAG, (variant or _CPU).lower()
        releases = Releases(self._release_url, this_machine())
        archives = await releases.archives(tag, variant, downloader)
        packed = sum(archive.size_bytes or 0 for archive in archives)
        free = shutil.disk_usage(self.downloads).free
        if free < packed * _ROOM_FACTOR:
            raise NoSpace(self._versions.folder, packed * _ROOM_FACTOR, free)
        name = tag if variant == _CPU else f"{tag}-{variant}"
        return InstallPlan(engine=self._name, version=name, archives=archives)

    async def install(
        self, plan: InstallPlan, files: Sequence[Path], on_step: Callable[[str], None]
    ) -> InstalledEngine:
        """See ``EngineInstaller``."""

        def tell(what: str) -> None:
            anyio.from_thread.run_sync(on_step, what)

        return await anyio.to_thread.run_sync(self._install, plan, files, tell)

    async def installed(self) -> list[InstalledEngine]:
        """Return the versions that are there, the newest first."""
        return await anyio.to_thread.run_sync(self._versions.list)

    async def use(self, version: str) -> InstalledEngine:
        """See ``EngineInstaller``."""
        return await anyio.to_thread.run_sync(self._versions.use, version)

    async def remove(self, version: str) -> InstalledEngine:
        """See ``EngineInstaller``."""
        return await anyio.to_thread.run_sync(self._versions.remove, version)

    def _install(
        self, plan: InstallPlan, files: Sequence[Path], tell: Callable[[str], None]
    ) -> InstalledEngine:
        with self._versions.making(plan.version) as making:
            try:
                tell("unpacking")
                program = _unpack_all(files, making)
            except UnpackFailed as failure:
                raise EngineInstallFailed(self._name, plan.version, str(failure)) from failure
            except OSError as error:
                free = shutil.disk_usage(making).free
                if error.errno is not None and free < 1 << 20:
                    raise NoSpace(self._versions.folder, 1 << 20, free) from error
                raise
            tell("trying it")
            try:
                anyio.from_thread.run(describe, program, self._cache)
            except ProbeFailed as failure:
                reason = f"it does not run here: {failure}; another --variant may"
                raise EngineInstallFailed(self._name, plan.version, reason) from failure
            return self._versions.place(making, plan.version, program, self._clock.now())


def _unpack_all(files: Iterable[Path], making: Path) -> Path:
    """Unpack the first, and lay the files of the others beside its program; return that."""
    first, *others = files
    whole = making / "engine"
    whole.mkdir(mode=0o700)
    unpack(first, whole, Bounds())
    program = _program_in(whole, first.name)
    program.chmod(0o700)
    for other in others:
        aside = making / "beside"
        aside.mkdir(mode=0o700)
        unpack(other, aside, Bounds())
        for path in sorted(aside.rglob("*")):
            beside = program.with_name(path.name)
            if path.is_symlink() and not beside.exists():
                # Their ends are laid beside it, too.
                beside.symlink_to(path.resolve().name)
            elif path.is_file() and not path.is_symlink():
                path.replace(beside)
        shutil.rmtree(aside)
    return program


def _program_in(folder: Path, archive: str) -> Path:
    found = [path for path in folder.rglob(_BINARY) if path.is_file()]
    if len(found) != 1:
        raise UnpackFailed(f"{archive} holds {len(found)} files called {_BINARY}, not one")
    return found[0]


@asynccontextmanager
async def open_llama_server_installer(context: AdapterContext) -> AsyncIterator[EngineInstaller]:
    """Open the installer. Settings: ``release_url``; ``path`` is the engine's own.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    url = release_url(context.name, context.settings)
    yield LlamaServerInstaller(context.name, context.data_dir, url, context.clock)


def release_url(engine: str, settings: Mapping[str, object]) -> str:
    """Return where releases are fetched from.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    refuse_unknown(engine, settings, {"path", "release_url"})
    said = optional_text(engine, settings, "release_url")
    return os.environ.get(RELEASE_URL_VARIABLE) or said or DEFAULT_RELEASE_URL
