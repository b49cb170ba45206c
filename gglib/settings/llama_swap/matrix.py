"""Expressions of a matrix, such as ``(a | b) & c``: which models may be in memory together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

import attrs

__all__ = ["MatrixError", "expand_sets"]

_TOKEN = re.compile(r"\s*(?:([&|()])|(\+?[^\s&|()+]+))")
_LIMIT_SETS = 10_000

#: Alternatives, each of them names.
_Sets = list[tuple[str, ...]]


class MatrixError(ValueError):
    """An expression that means nothing, or too much."""


def expand_sets(expressions: Mapping[str, str], name: str) -> _Sets:
    """Return what the expression called ``name`` allows, each set once, in its order.

    Raises:
        MatrixError: it is no expression, uses one that is not there, or itself.
    """
    return _expand(expressions, name, ())


def _expand(expressions: Mapping[str, str], name: str, within: tuple[str, ...]) -> _Sets:
    if name not in expressions:
        raise MatrixError(f"there is no set '{name}'")
    if name in within:
        raise MatrixError(f"the set '{name}' uses itself")
    parser = _Parser(expressions[name], expressions, (*within, name))
    return list(dict.fromkeys(parser.all()))


@attrs.define
class _Parser:
    text: str
    expressions: Mapping[str, str]
    within: tuple[str, ...]
    at: int = 0

    def all(self) -> _Sets:
        found = self._alternatives()
        if self.text[self.at :].strip():
            self._fail()
        return found

    def _alternatives(self) -> _Sets:
        found = self._together()
        while self._next("|"):
            found = found + self._together()
        return found

    def _together(self) -> _Sets:
        found = self._one()
        while self._next("&"):
            right = self._one()
            if len(found) * len(right) > _LIMIT_SETS:
                raise MatrixError(f"it allows more than {_LIMIT_SETS} sets")
            found = [tuple(dict.fromkeys(a + b)) for a in found for b in right]
        return found

    def _one(self) -> _Sets:
        if self._next("("):
            found = self._alternatives()
            if not self._next(")"):
                self._fail()
            return found
        token = _TOKEN.match(self.text, self.at)
        if token is None or token[2] is None:
            self._fail()
        self.at = token.end()
        name = token[2]
        if name.startswith("+"):
            return _expand(self.expressions, name[1:], self.within)
        return [(name,)]

    def _next(self, sign: str) -> bool:
        token = _TOKEN.match(self.text, self.at)
        if token is None or token[1] != sign:
            return False
        self.at = token.end()
        return True

    def _fail(self) -> NoReturn:
        rest = self.text[self.at : self.at + 40].strip()
        raise MatrixError(f"'{self.text[:200]}' makes no sense at '{rest}'")
