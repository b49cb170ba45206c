"""Finds the model files in a folder and all below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from gglib.domain.file_mark import FileMark
from gglib.errors import InvalidModelFile, ModelFileMissing
from gglib.ports.model_source import FolderSurvey, FoundFiles, PassedOver
from gglib_adapters.sources.bounded_reader import mark_of
from gglib_adapters.sources.projector_files import find_projectors
from gglib_adapters.sources.shards import shard_names

__all__ = ["gone_below", "grouped", "survey_folder"]

_MAX_NAMED = 5
#: The numbers by which the system knows a file or folder, however it was reached.
_Identity = tuple[int, int]


def survey_folder(root: Path, known: Collection[Path]) -> FolderSurvey:
    """Return what lies in ``root`` and below; see ``ModelSource.survey``."""
    walk = _Walk(_identities(known))
    walk.enter_root(root)
    groups, incomplete = grouped(walk.files)
    projectors = tuple(find_projectors(paths[0] for paths in groups if len(paths) == 1))
    not_models = {projector.path for projector in projectors}
    return FolderSurvey(
        models=tuple(
            FoundFiles(paths=paths, marks=tuple(walk.files[path] for path in paths))
            for paths in groups
            if paths[0] not in not_models
        ),
        projectors=projectors,
        passed_over=tuple(sorted([*walk.passed_over, *incomplete], key=lambda each: each.path)),
        vanished=gone_below(root, known),
    )


def gone_below(root: Path, known: Collection[Path]) -> tuple[Path, ...]:
    """Return which of the known files that should lie below ``root`` are gone, in order."""
    return tuple(sorted(path for path in known if path.is_relative_to(root) and _is_gone(path)))


class _Walk:
    """Goes through folders, each once, in the order of names."""

    def __init__(self, known: dict[_Identity, Path]) -> None:
        self.files: dict[Path, FileMark] = {}
        self.passed_over: list[PassedOver] = []
        self._known = known
        self._seen: set[_Identity] = set()

    def enter_root(self, root: Path) -> None:
        """Go through ``root`` and everything below.

        Raises:
            ModelFileMissing, InvalidModelFile: it cannot be listed.
        """
        try:
            self._seen.add(_identity(root.stat()))
            pending = self._list(root)
        except (FileNotFoundError, ValueError):
            raise ModelFileMissing(root) from None
        except NotADirectoryError:
            reason = "not a folder; `gglib model add` takes a file"
            raise InvalidModelFile(root, reason) from None
        except OSError as error:
            raise InvalidModelFile(root, f"cannot be listed: {error.strerror}") from error
        while pending:
            folder = pending.pop()
            try:
                pending += self._list(folder)
            except OSError as error:
                self._pass_over(folder, error)

    def _list(self, folder: Path) -> list[Path]:
        """Note a folder's files, and return the folders in it that are new, the first one last."""
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        return [folder / entry.name for entry in reversed(found) if self._is_new_folder(entry)]

    def _is_new_folder(self, entry: os.DirEntry[str]) -> bool:
        is_model = entry.name.lower().endswith(".gguf")
        try:
            # Of most entries the listing tells what they are: a look at each would be slow.
            if not is_model and not entry.is_dir():
                return False
            found = entry.stat()
        except OSError as error:
            if is_model:
                self._pass_over(Path(entry.path), error)
            return False
        identity = _identity(found)
        if stat.S_ISDIR(found.st_mode):
            is_new = identity not in self._seen
            self._seen.add(identity)
            return is_new
        if is_model:
            self._note(Path(entry.path), found, identity)
        return False

    def _note(self, path: Path, found: os.stat_result, identity: _Identity) -> None:
        if not stat.S_ISREG(found.st_mode):
            self.passed_over.append(PassedOver(path=path, reason="not a regular file"))
        elif self._known.get(identity, path) == path and identity not in self._seen:
            self._seen.add(identity)
            self.files[path] = mark_of(found)

    def _pass_over(self, path: Path, error: OSError) -> None:
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError):
            reason = "may not be read; check its permissions"
        elif isinstance(error, FileNotFoundError):
            reason = "a link to nothing"
        self.passed_over.append(PassedOver(path=path, reason=reason))


def _identities(known: Collection[Path]) -> dict[_Identity, Path]:
    found: dict[_Identity, Path] = {}
    for path in sorted(known):
        try:
            found.setdefault(_identity(path.stat()), path)
        except (OSError, ValueError):
            continue
    return found


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def grouped(
    files: Collection[Path],
) -> tuple[list[tuple[Path, ...]], list[PassedOver]]:
    """Return whole models, and those that lack shards."""
    whole, incomplete = [], []
    done = set[Path]()
    for path in sorted(files):
        if path in done:
            continue
        paths = [path.with_name(name) for name in shard_names(path.name)]
        there = [shard for shard in paths if shard in files]
        done.update(there)
        if len(there) == len(paths):
            whole.append(tuple(paths))
        else:
            lost = [shard.name for shard in paths if shard not in files]
            more = f" and {len(lost) - _MAX_NAMED} more" if len(lost) > _MAX_NAMED else ""
            reason = f"shards are missing: {', '.join(lost[:_MAX_NAMED])}{more}"
            incomplete.append(PassedOver(path=there[0], reason=reason))
    return whole, incomplete


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
