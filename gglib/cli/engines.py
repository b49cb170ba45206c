"""``gglib engine``: what serves models, where it comes from, and what it can do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
from cyclopts import App

from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import print_json, print_table, say, size, tell
from gglib.errors import EngineNotFound, GglibError

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.cli.progress import Bar
    from gglib.ports.downloader import DownloadProgress
    from gglib.ports.engine import Engine, EngineProbe
    from gglib.ports.engine_installer import EngineArchive, InstalledEngine
    from gglib.services.engine_installs import Installation

__all__ = ["app"]

app = App(name="engine", help="What serves models.", help_format="plaintext")

#: How often a program is told how far a download is.
_TELL_EVERY_S = 0.5


@app.command
def install(
    engine: str = "llama-server",
    /,
    *,
    version: str | None = None,
    variant: str | None = None,
    sha256: str | None = None,
    common: Common = COMMON,
) -> None:
    """Fetch an engine, verify it, try it, and use it from now on.

    Parameters
    ----------
    engine
        llama-server, or embedded.
    version
        A release of llama.cpp (b10621), or a version of xllamacpp; else one that gglib knows.
    variant
        What it computes on: cpu, cuda, vulkan, rocm …; else cpu (on macOS, Metal too).
    sha256
        What the archive must be, where the release does not say.
    """

    async def work() -> Installation:
        async with compose_for(common) as parts:
            installs = await parts.engine_installs()
            with _watching(as_json=common.json) as watcher:
                return await installs.install(
                    engine, watcher, version=version, variant=variant, sha256=sha256
                )

    done = anyio.run(work)
    if common.json:
        event = {"event": "installed", "fetched": done.fetched, "previous": done.previous}
        say(json.dumps({**event, **describe_installed(done.engine)}))
        return
    it = done.engine
    verb = "installed" if done.fetched else "was installed already:"
    say(f"{verb} {it.engine} {it.version} ({size(it.size_bytes)}), in use from now on")
    if done.previous is not None:
        say(f"{done.previous} is kept; `gglib engine use {done.previous}` goes back to it")


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the engines, where each was found, and the versions that gglib keeps."""

    async def work() -> tuple[list[dict[str, Any]], list[InstalledEngine]]:
        async with compose_for(common) as parts:
            engines = [row async for row in _examined(parts)]
            return engines, await (await parts.engine_installs()).installed()

    engines, installed = anyio.run(work)
    if common.json:
        kept = [describe_installed(each) for each in installed]
        print_json({"engines": engines, "installed": kept})
        return
    print_table(
        ("ENGINE", "FOUND BY", "VERSION", "CAN", "WHERE"),
        [
            (
                row["name"],
                row["source"] or "-",
                row["version"] or "-",
                ", ".join(row["can"]) or "-",
                row["path"] or row["problem"] or "-",
            )
            for row in engines
        ],
    )
    if installed:
        say("")
        print_table(
            ("INSTALLED", "ENGINE", "SIZE", ""),
            [
                (each.version, each.engine, size(each.size_bytes), "in use" if each.current else "")
                for each in installed
            ],
        )


@app.command
def probe(engine: str = "llama-server", /, *, common: Common = COMMON) -> None:
    """Ask an engine what it is and which flags it knows. Nothing is started.

    Parameters
    ----------
    engine
        An engine's name, or the path of a llama-server.
    """

    path = Path(engine).expanduser().absolute() if _is_path(engine) else None

    async def work() -> tuple[Engine, EngineProbe]:
        async with compose_for(common) as parts:
            engines = await parts.engines()
            named = engine in engines or engine in engines.broken
            asked = engines[engine] if named or path is None else await parts.engine_at(path)
            return asked, await asked.probe()

    asked, found = anyio.run(work)
    if common.json:
        print_json({**_describe(asked, found), "flags": list(found.flags)})
        return
    for key, value in _describe(asked, found).items():
        if value:
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            say(f"{key:9} {shown}")
    long = [flag for flag in found.flags if flag.startswith("--")]
    if long:
        say(f"{'flags':9} {' '.join(long)}")


@app.command
def use(version: str, /, *, engine: str | None = None, common: Common = COMMON) -> None:
    """Use another of the installed versions; servers that run are not touched.

    Parameters
    ----------
    version
        As `gglib engine list` shows it.
    engine
        The engine that it is of, if two have a version of that name.
    """

    async def work() -> InstalledEngine:
        async with compose_for(common) as parts:
            return await (await parts.engine_installs()).use(version, engine)

    used = anyio.run(work)
    if common.json:
        print_json(describe_installed(used))
    else:
        say(f"{used.engine} {used.version} is used from now on")


@app.command
def remove(version: str, /, *, engine: str | None = None, common: Common = COMMON) -> None:
    """Delete an installed version, unless a server runs it.

    Parameters
    ----------
    version
        As `gglib engine list` shows it.
    engine
        The engine that it is of, if two have a version of that name.
    """

    async def work() -> InstalledEngine:
        async with compose_for(common) as parts:
            return await (await parts.engine_installs()).remove(version, engine)

    gone = anyio.run(work)
    if common.json:
        print_json({"removed": gone.version, "engine": gone.engine})
        return
    say(f"removed {gone.engine} {gone.version} ({size(gone.size_bytes)})")
    if gone.current:
        say(f"no installed {gone.engine} is in use now; `gglib engine use VERSION` chooses one")


def describe_installed(each: InstalledEngine) -> dict[str, Any]:
    """Return a version as plain data."""
    return {**attrs.asdict(each), "path": str(each.path)}


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).is_file()


async def _examined(parts: Composition) -> AsyncIterator[dict[str, Any]]:
    engines = await parts.engines()
    for name in engines.names:
        try:
            yield _describe(engines[name], await engines[name].probe())
        except GglibError as error:
            yield _missing(name, error)
    for name, reason in engines.broken.items():
        yield _missing(name, reason)


def _describe(engine: Engine, found: EngineProbe) -> dict[str, Any]:
    able = attrs.asdict(engine.capabilities)
    return {
        "name": engine.name,
        "source": found.source,
        "version": found.version,
        "path": str(found.path) if found.path else None,
        "can": [name for name in ("slots", "lora", "embeddings", "metrics") if able[name]],
        "problem": None,
    }


def _missing(name: str, error: GglibError) -> dict[str, Any]:
    reason = error.reason if isinstance(error, EngineNotFound) else str(error)
    empty = dict.fromkeys(("source", "version", "path"))
    return {"name": name, **empty, "can": [], "problem": " ".join(reason.split())}


@contextmanager
def _watching(*, as_json: bool) -> Iterator[_Watcher]:
    from gglib.cli.progress import progress

    with progress("", in_bytes=True, shown=not as_json) as bar:
        yield _Watcher(bar, as_json=as_json)


class _Watcher:
    """Shows how an installation goes on: a bar for people, lines for programs."""

    def __init__(self, bar: Bar, *, as_json: bool) -> None:
        self._bar = bar
        self._json = as_json
        self._told_at = 0.0
        self._note: str | None = None

    def downloading(self, archive: EngineArchive, progress: DownloadProgress) -> None:
        """So much of an archive is there."""
        done, total = progress.done_bytes, progress.total_bytes
        self._bar(done, total or 0, progress.note or archive.name)
        if progress.note != self._note and progress.note is not None and not self._json:
            tell(f"{archive.name}: {progress.note}")
        ended = done == total
        if self._json and (ended or time.monotonic() - self._told_at >= _TELL_EVERY_S):
            self._told_at = time.monotonic()
            self._event("progress", name=archive.name, done_bytes=done, total_bytes=total)
        self._note = progress.note

    def step(self, what: str) -> None:
        """Something else is done."""
        if self._json:
            self._event("step", what=what)
        elif sys.stderr.isatty():
            tell(what)

    def _event(self, event: str, **fields: Any) -> None:
        say(json.dumps({"event": event, **fields}))
        sys.stdout.flush()
