"""Reads the folders and small files of other tools' stores."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from gglib.errors import InvalidModelFile, InvalidRequest, ModelFileMissing
from gglib_adapters.sources.bounded_reader import MalformedFile, open_regular
from gglib_adapters.sources.file import absolute_path

__all__ = ["folders_in", "is_there", "names_in", "read_json", "read_small", "store_folder"]

#: No store has so many entries in one folder.
_MAX_ENTRIES = 10_000


def store_folder(tool: str, given: Path | None, usual: Iterable[Path]) -> Path:
    """Return the folder that was given, absolute; else the first of the usual ones that is there.

    Raises:
        InvalidRequest: none is.
    """
    if given is not None:
        return absolute_path(str(given))
    looked = tuple(usual)
    for folder in looked:
        if is_there(folder):
            return folder
    places = " or ".join(map(str, looked))
    raise InvalidRequest(f"no models of {tool} in {places}; name the folder they are in", "folder")


def is_there(path: Path) -> bool:
    """Whether something has that path; what may not be looked at is there, too."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, in order, hidden ones left out.

    Raises:
        ModelFileMissing: there is no such folder.
        InvalidModelFile: it cannot be listed, or has more than 10,000 entries.
    """
    try:
        with os.scandir(folder) as entries:
            found = [name for entry in entries if not (name := entry.name).startswith(".")]
    except (FileNotFoundError, ValueError):
        raise ModelFileMissing(folder) from None
    except NotADirectoryError:
        raise InvalidModelFile(folder, "not a folder") from None
    except PermissionError:
        raise InvalidModelFile(folder, "may not be read; check its permissions") from None
    except OSError as error:
        raise InvalidModelFile(folder, f"cannot be listed: {error.strerror}") from error
    if len(found) > _MAX_ENTRIES:
        raise InvalidModelFile(folder, f"has more than {_MAX_ENTRIES} entries")
    return sorted(found)


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder; raises what ``names_in`` does."""
    return [path for name in names_in(folder) if _is_folder(path := folder / name)]


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read_small(path: Path, limit_bytes: int) -> bytes:
    """Return a file's content.

    Raises:
        ModelFileMissing: there is no such file.
        InvalidModelFile: it may not be read, is no regular file, or too large.
    """
    with open_regular(path) as (file, mark):
        if mark.size_bytes > limit_bytes:
            raise MalformedFile(f"larger than the {limit_bytes >> 10} KiB that it may have")
        content = file.read(limit_bytes)
    return content or b""


def read_json(path: Path, limit_bytes: int) -> tuple[dict[str, Any], bytes]:
    """Return a file's JSON object, and its content.

    Raises:
        ModelFileMissing, InvalidModelFile: as for ``read_small``, or it is no JSON object.
    """
    content = read_small(path, limit_bytes)
    try:
        found = json.loads(content.decode(), parse_constant=_refuse)
    except RecursionError:
        raise InvalidModelFile(path, "damaged: nested too deeply") from None
    except UnicodeDecodeError:
        raise InvalidModelFile(path, "damaged: not UTF-8") from None
    except ValueError as error:
        raise InvalidModelFile(path, f"damaged: not JSON ({str(error)[:100]})") from None
    if not isinstance(found, dict):
        raise InvalidModelFile(path, "damaged: not a JSON object")
    return found, content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
