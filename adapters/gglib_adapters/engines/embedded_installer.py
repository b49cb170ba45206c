"""The embedded engine in a virtual environment of its own, beside gglib's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import anyio
import anyio.to_thread

from gglib.errors import EngineInstallFailed, InvalidValue
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.downloader import Downloader
from gglib.ports.engine_installer import EngineInstaller, InstalledEngine, InstallPlan
from gglib_adapters.engines.embedded_site import PACKAGE, package_in
from gglib_adapters.engines.settings import refuse_unknown
from gglib_adapters.engines.versions import Versions

__all__ = ["DEFAULT_VERSION", "EmbeddedInstaller", "open_embedded_installer"]

#: The one that gglib is tried with.
DEFAULT_VERSION = "2026.10.11549"

_VERSION_CHARACTERS = frozenset("0123456789.abcdevoprst+")


class EmbeddedInstaller(EngineInstaller):
    """Has pip fetch the wheel, from where pip is set to fetch; pip verifies its hash."""

    __slots__ = ("_clock", "_name", "_versions")

    def __init__(self, name: str, data_dir: Path, clock: Clock) -> None:
        self._name = name
        self._versions = Versions.of(name, data_dir)
        self._clock = clock

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._name

    @property
    def downloads(self) -> Path:
        """Where nothing is: pip has its own place."""
        return self._versions.folder

    async def plan(
        self, version: str | None, variant: str | None, downloader: Downloader
    ) -> InstallPlan:
        """See ``EngineInstaller``; nothing is looked up."""
        del downloader
        if variant not in {None, "cpu"}:
            raise InvalidValue("variant", variant, f"cpu: the wheel of {PACKAGE} has no other")
        chosen = version or DEFAULT_VERSION
        if not chosen[0].isdigit() or not _VERSION_CHARACTERS.issuperset(chosen):
            expected = f"a version of {PACKAGE}, such as {DEFAULT_VERSION}"
            raise InvalidValue("version", version, expected)
        return InstallPlan(engine=self._name, version=chosen)

    async def install(
        self, plan: InstallPlan, files: Sequence[Path], on_step: Callable[[str], None]
    ) -> InstalledEngine:
        """See ``EngineInstaller``."""
        del files
        with self._versions.making(plan.version) as making:
            environment = making / "venv"
            on_step("making a virtual environment")
            ours = [sys.executable, "-I", "-m"]
            await self._run(plan, [*ours, "venv", "--without-pip", str(environment)])
            folder = "Scripts" if os.name == "nt" else "bin"
            python = str(environment / folder / "python")
            pip = [*ours, "pip", "--python", python]
            if find_spec("pip") is None:
                await self._run(plan, [python, "-I", "-m", "ensurepip"])
                pip = [python, "-I", "-m", "pip"]
            on_step(f"having pip fetch {PACKAGE} {plan.version}")
            pip += ["install", "--no-input", "--quiet", "--disable-pip-version-check"]
            await self._run(plan, [*pip, "--only-binary", ":all:", f"{PACKAGE}=={plan.version}"])
            on_step("trying it")
            await self._run(plan, [python, "-I", "-c", f"import {PACKAGE}"])
            package = package_in(environment)
            if package is None:
                reason = f"pip put no {PACKAGE} into {environment}"
                raise EngineInstallFailed(self._name, plan.version, reason)
            return self._versions.place(making, plan.version, package, self._clock.now())

    async def installed(self) -> list[InstalledEngine]:
        """Return the versions that are there, the newest first."""
        return await anyio.to_thread.run_sync(self._versions.list)

    async def use(self, version: str) -> InstalledEngine:
        """See ``EngineInstaller``."""
        return await anyio.to_thread.run_sync(self._versions.use, version)

    async def remove(self, version: str) -> InstalledEngine:
        """See ``EngineInstaller``."""
        return await anyio.to_thread.run_sync(self._versions.remove, version)

    async def _run(self, plan: InstallPlan, command: list[str]) -> None:
        done = await anyio.run_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode == 0:
            return
        lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines()]
        said = "; ".join([line for line in lines if line][-3:])[:600] or "it says nothing"
        ways = (
            "without a network, put llama-server on PATH, or let pip find the wheel by "
            "PIP_FIND_LINKS and PIP_NO_INDEX"
        )
        reason = f"`{' '.join(command[1:])}` failed: {said}. {ways}"
        raise EngineInstallFailed(self._name, plan.version, reason)


@asynccontextmanager
async def open_embedded_installer(context: AdapterContext) -> AsyncIterator[EngineInstaller]:
    """Open the installer. It has no settings.

    Raises:
        ConfigurationError: it was given one.
    """
    refuse_unknown(context.name, context.settings, ())
    yield EmbeddedInstaller(context.name, context.data_dir, context.clock)
