"""One pull's files, from the hub to their folder, verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from gglib.domain.hub import HubFile
from gglib.domain.pull import Pull
from gglib.errors import DownloadRefused, GglibError, HubAccessDenied, NoSpace
from gglib.ports.downloader import Downloader, DownloadProgress, partial_of
from gglib.ports.model_hub import ModelHub
from gglib.ports.model_source import ModelSource
from gglib.services.pulling.planning import folder_name

__all__ = ["FileFetcher", "Progress", "bytes_there", "folder_of", "forget_files", "remove_empty"]

#: Files of one pull that are fetched side by side.
_AT_ONCE = 4


@attrs.define(eq=False)
class Progress:
    """How far a pull is, in bytes, as far as this process fetches it."""

    total_bytes: int
    done: dict[str, int] = attrs.field(factory=dict)
    kept: dict[str, int] = attrs.field(factory=dict)
    notes: dict[str, str] = attrs.field(factory=dict)

    @property
    def done_bytes(self) -> int:
        """What is there of all files together."""
        return sum(self.done.values())

    @property
    def kept_bytes(self) -> int:
        """What was there before."""
        return sum(self.kept.values())

    @property
    def note(self) -> str | None:
        """What is waited for, if anything is."""
        return next(iter(self.notes.values()), None)

    def take(self, path: str, told: DownloadProgress) -> None:
        """Note how far one file is."""
        self.done[path] = told.done_bytes
        self.kept[path] = told.kept_bytes
        if told.note is None:
            self.notes.pop(path, None)
        else:
            self.notes[path] = told.note


def repository_folder(data_dir: Path, repository: str) -> Path:
    """Return where everything of a repository is kept."""
    owner, _, name = repository.partition("/")
    return data_dir / "models" / owner / name


def folder_of(data_dir: Path, pull: Pull) -> Path:
    """Return where a pull's files are kept: shards of two commits never lie side by side."""
    folder = repository_folder(data_dir, pull.request.reference.repository)
    return folder / pull.plan.commit[:12] / folder_name(pull.plan.quantization)


class FileFetcher:
    """Brings files of a pull to its folder: what is on this machine already is not fetched."""

    def __init__(
        self, *, hub: ModelHub, downloader: Downloader, source: ModelSource, data_dir: Path
    ) -> None:
        self._hub = hub
        self._downloader = downloader
        self._source = source
        self._data_dir = data_dir

    async def fetch(self, pull: Pull, progress: Progress) -> Mapping[str, str]:
        """Return the SHA-256 of each file by its path in the repository, once all are there.

        Raises:
            NoSpace: they do not all fit on the disk; nothing was fetched.
            HubAccessDenied: the hub does not give one.
            DownloadError: one cannot be fetched; what came is kept.
        """
        folder = folder_of(self._data_dir, pull)
        await anyio.to_thread.run_sync(_make_private, self._data_dir, folder)
        digests: dict[str, str] = {}
        for file in pull.plan.all_files:
            digest = await self._find(pull, file, folder / file.name, progress)
            if digest is not None:
                digests[file.path] = digest
                progress.done[file.path] = progress.kept[file.path] = file.size_bytes
        missing = [file for file in pull.plan.all_files if file.path not in digests]
        await anyio.to_thread.run_sync(_check_room, folder, missing)
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        failures: list[GglibError] = []

        async def fetch_one(file: HubFile) -> None:
            async with limiter:
                try:
                    digests[file.path] = await self._fetch_one(pull, file, folder, progress)
                except GglibError as error:
                    failures.append(error)
                    tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for file in missing:
                tasks.start_soon(fetch_one, file)
        if failures:
            raise failures[0]
        return digests

    async def _fetch_one(self, pull: Pull, file: HubFile, folder: Path, progress: Progress) -> str:
        repository = pull.request.reference.repository
        place = self._hub.location(repository, pull.plan.commit, file.path)
        try:
            found = await self._downloader.fetch(
                place.url,
                folder / file.name,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                max_bytes=file.size_bytes,
                headers=place.headers,
                on_progress=partial(progress.take, file.path),
            )
        except DownloadRefused as error:
            if error.status not in {401, 403}:
                raise
            raise HubAccessDenied(
                f"{error}; if {repository} is gated, accept its terms on its page, and set "
                "HF_TOKEN to a token of yours"
            ) from error
        progress.notes.pop(file.path, None)
        return found.sha256

    async def _find(
        self, pull: Pull, file: HubFile, target: Path, progress: Progress
    ) -> str | None:
        """Return the SHA-256 of a file that is at its place, or is put there from another commit.

        Without a SHA-256 of the hub's nothing tells whether two files are the same.
        """
        if file.sha256 is None:
            return None
        repository = repository_folder(self._data_dir, pull.request.reference.repository)
        candidates = await anyio.to_thread.run_sync(_of_size, repository, file)
        if target in candidates:
            # It was verified before it was put there.
            return file.sha256
        for candidate in candidates:
            progress.notes[file.path] = "looking whether it is here"
            mark = await self._source.digest(candidate)
            if mark.sha256 == file.sha256:
                await anyio.to_thread.run_sync(_link, candidate, target)
                break
        else:
            return None
        progress.notes.pop(file.path, None)
        return file.sha256


def forget_files(folder: Path, pull: Pull, used: Callable[[Path], bool]) -> None:
    """Delete what was fetched of a pull, but for what is ``used``; and folders left empty."""
    for file in pull.plan.all_files:
        target = folder / file.name
        for path in (target, partial_of(target)):
            if not used(path):
                path.unlink(missing_ok=True)
        note = partial_of(target)
        note.with_name(note.name + ".json").unlink(missing_ok=True)
    remove_empty(folder)


def bytes_there(folder: Path, pull: Pull) -> int:
    """Return what is on the disk of a pull's files, whole or in part."""
    total = 0
    for file in pull.plan.all_files:
        for path in (folder / file.name, partial_of(folder / file.name)):
            try:
                total += min(path.stat().st_size, file.size_bytes)
                break
            except OSError:
                continue
    return total


def remove_empty(folder: Path) -> None:
    """Remove a pull's folder and those above it, as long as they are empty."""
    for each in (folder, *folder.parents[:3]):
        try:
            each.rmdir()
        except OSError:
            return


def _make_private(data_dir: Path, folder: Path) -> None:
    path = data_dir
    for part in folder.relative_to(data_dir).parts:
        path /= part
        path.mkdir(mode=0o700, exist_ok=True)


def _check_room(folder: Path, missing: list[HubFile]) -> None:
    """Raise ``NoSpace`` unless all of them fit, less what is there of them already."""
    needed = 0
    for file in missing:
        part = partial_of(folder / file.name)
        there = part.stat().st_size if part.is_file() else 0
        needed += max(0, file.size_bytes - there)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(folder, needed, free)


def _of_size(folder: Path, file: HubFile) -> list[Path]:
    """Return files of the repository that may be this one."""
    return [
        path
        for path in sorted(folder.glob(f"*/*/{_literal(file.name)}"))
        if path.is_file() and path.stat().st_size == file.size_bytes
    ]


def _literal(name: str) -> str:
    """Return a pattern that matches ``name`` alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _link(existing: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # of another size
    try:
        target.hardlink_to(existing)
    except OSError:
        # A file system without links.
        fresh = target.with_name(target.name + ".copy")
        shutil.copyfile(existing, fresh)
        fresh.replace(target)
