"""llama-swap's macros: ``${name}``, ``${env.NAME}``; macros may use macros."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["MacroError", "Macros"]

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
#: What llama-swap fills in when it starts, or stops, a server.
_LATER = frozenset({"PORT", "PID"})
_LIMIT_CHARACTERS = 1 << 20


class MacroError(ValueError):
    """A macro that is not there, or that uses itself."""


@attrs.frozen
class Macros:
    """The macros that hold at one place; the innermost definition of a name counts."""

    values: Mapping[str, Any]
    environ: Mapping[str, str]
    _known: dict[str, Any] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """What macros have come to: one that many use is worked out once."""

    def with_(self, values: Mapping[str, Any]) -> Macros:
        """Return these, and ``values`` before them."""
        return Macros({**self.values, **values}, self.environ)

    def expanded(self, value: Any) -> Any:
        """Return ``value`` with its macros filled in, those in tables and lists too.

        A text that is one macro and nothing else becomes what that stands for, a number, say.

        Raises:
            MacroError: there is no such macro or variable, or it never ends.
        """
        if isinstance(value, str):
            return self._text(value, ())
        if isinstance(value, Mapping):
            return {str(self.expanded(key)): self.expanded(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expanded(item) for item in value]
        return value

    def _text(self, text: str, within: tuple[str, ...]) -> Any:
        whole = _MACRO.fullmatch(text)
        if whole is not None:
            return self._value(whole[1], within)
        filled = _MACRO.sub(lambda found: _as_text(self._value(found[1], within)), text)
        if len(filled) > _LIMIT_CHARACTERS:
            raise MacroError(f"its macros make it longer than {_LIMIT_CHARACTERS} characters")
        return filled

    def _value(self, name: str, within: tuple[str, ...]) -> Any:
        if name in _LATER:
            return f"${{{name}}}"
        if name.startswith("env."):
            found = self.environ.get(name.removeprefix("env."))
            if found is None:
                raise MacroError(f"the variable {name.removeprefix('env.')} is not set")
            return found
        if name in within:
            raise MacroError(f"the macro '{name}' uses itself")
        if name not in self.values:
            raise MacroError(f"there is no macro '{name}'")
        if name not in self._known:
            value = self.values[name]
            found = self._text(value, (*within, name)) if isinstance(value, str) else value
            self._known[name] = found
        return self._known[name]


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
