"""A YAML file as plain data, and on which line each key is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import attrs
import yaml

from gglib.errors import ConfigurationError
from gglib.settings.key_lines import KeyPath, line_of

__all__ = ["YamlFile"]

_LIMIT_BYTES = 4 << 20
#: Of a file in which aliases stand for aliases, too.
_LIMIT_NODES = 200_000
_LIMIT_DEPTH = 100
_MERGE = "tag:yaml.org,2002:merge"

_Pairs: TypeAlias = dict[str, tuple[yaml.ScalarNode, yaml.Node]]


@attrs.frozen
class YamlFile:
    """A file's contents: tables, lists, texts, numbers, truths and ``None``."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    @classmethod
    def read(cls, path: Path) -> YamlFile:
        """Return the file at ``path``.

        Raises:
            ConfigurationError: it cannot be read, is not YAML, or not a table; with the line.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_LIMIT_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"cannot be read: {reason}", str(path)) from None
        if len(content) > _LIMIT_BYTES:
            raise ConfigurationError(f"larger than {_LIMIT_BYTES >> 20} MiB", str(path))
        reader = _Reader(path, content)
        return cls(path, reader.table(), reader.lines)

    def line(self, path: KeyPath) -> int | None:
        """Return the line where ``path``, or what encloses it, is."""
        return line_of(self.lines, path)


class _Reader:
    """Walks the nodes of one document, in bounds."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._path = path
        self._content = content
        self._nodes = 0
        self._merged: dict[int, _Pairs] = {}
        """By node, all of which live as long as this."""

    def table(self) -> Mapping[str, Any]:
        try:
            self._loader = yaml.SafeLoader(self._content)
            root = self._loader.get_single_node()
            found = {} if root is None else self._value(root, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._fail(f"not YAML: {error.problem or error.context}", mark)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
            self._fail(f"not YAML: {' '.join(str(error).split())}", None)
        except RecursionError:
            self._fail("nested too deeply", None)
        if not isinstance(found, dict):
            self._fail("not a table of settings", None)
        return found

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > _LIMIT_NODES:
            self._fail("its aliases make it too large", node.start_mark)
        if len(path) > _LIMIT_DEPTH:
            self._fail("nested too deeply", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self._note((*path, str(index)), item)
                items.append(self._value(item, (*path, str(index))))
            return items
        value = self._loader.construct_object(node)
        plain = value is None or isinstance(value, (str, int, float, bool))
        return value if plain else str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, (key, value) in self._pairs(node, len(path)).items():
            self._note((*path, name), key)
            found[name] = self._value(value, (*path, name))
        return found

    def _pairs(self, node: yaml.MappingNode, depth: int) -> _Pairs:
        """Return a table's keys and values, those of merged tables among them; own ones win.

        Of each table once, however often it is merged: what merges what grows without bounds.
        """
        if id(node) in self._merged:
            return self._merged[id(node)]
        if depth > _LIMIT_DEPTH:
            self._fail("nested too deeply", node.start_mark)
        own: _Pairs = {}
        merged: _Pairs = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail("a key that is not a text", key.start_mark)
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        self._fail("'<<' merges tables only", source.start_mark)
                    merged = {**self._pairs(source, depth + 1), **merged}
            elif key.value in own:
                self._fail(f"the key '{key.value[:200]}' is there twice", key.start_mark)
            else:
                own[str(key.value)] = (key, value)
        self._merged[id(node)] = {**merged, **own}
        return self._merged[id(node)]

    def _note(self, path: KeyPath, node: yaml.Node) -> None:
        self.lines[path] = node.start_mark.line + 1

    def _fail(self, message: str, mark: yaml.Mark | None) -> NoReturn:
        line = None if mark is None else mark.line + 1
        raise ConfigurationError(message, str(self._path), line) from None
