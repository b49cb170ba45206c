"""On which line of a TOML text each key is: what the standard parser does not tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["KeyPath", "dotted", "find_key_lines", "line_of"]

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
_VALUE_PIECE = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def find_key_lines(source: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of every table and key in ``source``, which is valid TOML.

    Elements of ``[[arrays]]`` have their index in the path. Keys of inline tables are not
    listed: their table is (see ``line_of``).
    """
    return _Scanner(source).scan()


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of ``path``, or of the nearest thing around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def dotted(path: KeyPath) -> str:
    """Return ``path`` as TOML writes it."""
    return ".".join(_written(str(part)) for part in path)


def _written(part: str) -> str:
    if _BARE.fullmatch(part):
        return part
    import json

    # A JSON string is a TOML string.
    return json.dumps(part, ensure_ascii=False)


class _Scanner:
    def __init__(self, source: str) -> None:
        self._source = source
        self._position = 0
        self._lines: dict[KeyPath, int] = {}
        self._last_index: dict[KeyPath, int] = {}
        self._counted_to = 0
        self._line = 1

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self._position >= len(self._source):
                return self._lines
            if self._source.startswith("[[", self._position):
                table = self._header(2, array=True)
            elif self._source.startswith("[", self._position):
                table = self._header(1, array=False)
            else:
                line = self._here()
                self._note(table + self._key(), line)
                self._position += 1  # the equals sign
                self._skip_value()

    def _header(self, brackets: int, *, array: bool) -> KeyPath:
        line = self._here()
        self._position += brackets
        key = self._key()
        self._position += brackets
        path: KeyPath = ()
        for number, part in enumerate(key):
            path = (*path, part)
            last = number == len(key) - 1
            if last and array:
                self._last_index[path] = self._last_index.get(path, -1) + 1
            if path in self._last_index:
                path = (*path, self._last_index[path])
        self._note(path, line)
        return path

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            for pattern in (_BARE, _BASIC, _LITERAL):
                match = pattern.match(self._source, self._position)
                if match is not None:
                    self._position = match.end()
                    parts.append(_text_of(match, pattern))
                    break
            self._skip(_SPACE)
            if not self._source.startswith(".", self._position):
                return tuple(parts)
            self._position += 1

    def _skip_value(self) -> None:
        depth = 0
        while match := _VALUE_PIECE.match(self._source, self._position):
            self._position = match.end()
            piece = match[0]
            if piece in "[{":
                depth += 1
            elif piece in "]}":
                depth -= 1
            elif piece == "\n" and depth == 0:
                return

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._source, self._position)
        if match is not None:
            self._position = match.end()

    def _note(self, path: KeyPath, line: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)
        self._lines[path] = line

    def _here(self) -> int:
        self._line += self._source.count("\n", self._counted_to, self._position)
        self._counted_to = self._position
        return self._line


def _text_of(match: re.Match[str], pattern: re.Pattern[str]) -> str:
    if pattern is _BARE:
        return match[0]
    if pattern is _BASIC and "\\" in match[1]:
        import tomllib

        return str(tomllib.loads(f"key = {match[0]}")["key"])
    return match[1]
