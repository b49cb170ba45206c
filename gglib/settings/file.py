"""A settings file: read, parsed and, where it says what to run, safe from other users."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import attrs

from gglib.errors import ConfigurationError
from gglib.settings.key_lines import KeyPath, find_key_lines, line_of

__all__ = ["SettingsFile", "is_private_group", "unknown_key"]

_LIMIT_BYTES = 4 << 20
_WHERE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_RUNS_CODE = ("engine", "environment", "extra_args")


@attrs.frozen
class SettingsFile:
    """A file's contents, and where each key is."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    @classmethod
    def read(cls, path: Path) -> SettingsFile:
        """Return the file at ``path``.

        Raises:
            ConfigurationError: it is missing, unreadable, not TOML, or others can write it
                and it says what to run.
        """
        content, found = _content(path)
        data, lines = _parsed(path, content)
        file = cls(path, data, lines)
        reason = file._runs()
        if reason is not None and os.name == "posix" and _others_can_write(path, found):
            raise ConfigurationError(
                f"it says what to run ({reason}), and a configuration that others can write is "
                f"refused; chmod go-w '{path}', and its folder if need be",
                str(path),
                line_of(lines, ()),
            )
        return file

    def line(self, path: KeyPath) -> int | None:
        """Return the line where ``path``, or what encloses it, is."""
        return line_of(self.lines, path)

    def origin(self, path: KeyPath) -> str:
        """Return where ``path`` is, for people."""
        line = self.line(path)
        return f"file {self.path}" + (f":{line}" if line is not None else "")

    def fail(self, path: KeyPath, message: str) -> NoReturn:
        """Raise an error about ``path``."""
        raise ConfigurationError(message, str(self.path), self.line(path)) from None

    def table(self, path: KeyPath, value: Any) -> Mapping[str, Any]:
        """Return ``value``, which is at ``path``, if it is a table."""
        if not isinstance(value, dict):
            name = ".".join(str(part) for part in path)
            self.fail(path, f"{name} is {value!r}; expected a table, [{name}]")
        return value

    def _runs(self) -> str | None:
        for section in ("engines", "runners", "serving", "sources"):
            if self.data.get(section):
                return f"[{section}]"
        models = self.data.get("models")
        for name, model in models.items() if isinstance(models, dict) else ():
            for key in _RUNS_CODE:
                if isinstance(model, dict) and key in model:
                    return f"models.{name}.{key}"
        return None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return what to say of an unknown ``key``: the nearest known one, and all of them."""
    from difflib import get_close_matches

    names = sorted(known)
    nearest = get_close_matches(key[:200], names, n=1, cutoff=0.6)
    if nearest:
        return f"unknown key '{key[:200]}'; did you mean '{nearest[0]}'?"
    return f"unknown key '{key[:200]}'; known here: {', '.join(names)}"


def _content(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        # A pipe would make the open wait: it is not a regular file, and not opened as one.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError("not a file", str(path))
            content = file.read(_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, IsADirectoryError):
            reason = "a directory, not a file"
        else:
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigurationError(reason, str(path)) from None
    if len(content) > _LIMIT_BYTES:
        raise ConfigurationError(f"larger than {_LIMIT_BYTES >> 20} MiB", str(path))
    return content, found


def _parsed(path: Path, content: bytes) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    import tomllib

    try:
        source = content.decode("utf-8-sig").replace("\r\n", "\n")
        return tomllib.loads(source), find_key_lines(source)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError("not UTF-8", str(path), line) from None
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        where = _WHERE.search(message)
        line = source.count("\n") + 1
        if where is not None:
            message, line = message[: where.start()], int(where[1] or line)
        raise ConfigurationError(f"not TOML: {message}", str(path), line) from None
    except RecursionError:
        raise ConfigurationError("nested too deeply", str(path)) from None


def _others_can_write(path: Path, found: os.stat_result) -> bool:
    """Return whether another user can change the file, or put another in its place."""
    folder = path.resolve().parent.stat()
    return _writable(found) or (_writable(folder) and not folder.st_mode & stat.S_ISVTX)


def _writable(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not is_private_group(found)


def is_private_group(found: os.stat_result) -> bool:
    """Return whether the owner is alone in the group, as where each user has one of his own."""
    import grp
    import pwd

    try:
        owner = pwd.getpwuid(found.st_uid)
        group = grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}
