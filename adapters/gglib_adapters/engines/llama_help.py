"""What a llama-server says about its own flags: its ``--help``, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

__all__ = ["KnownFlags", "Option", "parse_help"]

_SPELLING = re.compile(r"(--?[A-Za-z0-9][\w.-]*)(,\s*)?")
_HINT_END = re.compile(r"\s{2,}")
_LISTED_HINT = re.compile(r"[\[{]?([a-z0-9+_-]+(?:[,|][a-z0-9+_-]+)+)[\]}]?")
_ALLOWED = re.compile(r"allowed values:\s*([^(]+)")
_BULLET = re.compile(r"^- ([\w+-]+)(?: \(default\))?:", re.MULTILINE)
_DEFAULT = re.compile(r"\(default: '?([\w+-]+)'?\)")

#: How newer builds list a flag that they only know well enough to refuse.
#: Source: llama-server --help, build 11434 (``--draft-max``).
_REMOVED = "the argument has been removed"


@attrs.frozen
class Option:
    """One option of a ``--help`` text, under all its spellings."""

    spellings: tuple[str, ...]
    hint: str
    """What follows the flag (``N``, ``[on|off|auto]``); empty for a switch."""
    description: str

    @property
    def takes_value(self) -> bool:
        """Return whether a value follows the flag."""
        return bool(self.hint)

    @property
    def choices(self) -> frozenset[str]:
        """Return the words it accepts; empty when the text does not list them."""
        if listed := _LISTED_HINT.fullmatch(self.hint):
            return frozenset(re.split(r"[,|]", listed[1]))
        if allowed := _ALLOWED.search(self.description):
            words = re.split(r"[,\s]+", allowed[1].strip())
        else:
            words = _BULLET.findall(self.description)
        if not words:
            return frozenset()
        return frozenset(words) | frozenset(_DEFAULT.findall(self.description))

    def accepts(self, value: str) -> bool:
        """Return whether ``value`` is a listed word, or no words are listed."""
        return not self.choices or value in self.choices


@attrs.frozen
class KnownFlags:
    """The options of one binary, by every spelling."""

    options: Mapping[str, Option]

    def __contains__(self, spelling: object) -> bool:
        return spelling in self.options

    def first(self, *spellings: str) -> tuple[str, Option] | None:
        """Return the first of ``spellings`` that is known, with its option."""
        for spelling in spellings:
            if (option := self.options.get(spelling)) is not None:
                return spelling, option
        return None


def _head(line: str) -> tuple[tuple[str, ...], str, str]:
    """Split an option's first line into spellings, hint and start of the description."""
    spellings = []
    position = 0
    while match := _SPELLING.match(line, position):
        spellings.append(match[1])
        position = match.end()
        if match[2] is None:
            break
    rest = line[position:]
    if rest.startswith("  ") or not rest.strip():
        return tuple(spellings), "", rest.strip()
    hint, *description = _HINT_END.split(rest.strip(), maxsplit=1)
    return tuple(spellings), hint, "".join(description)


def parse_help(text: str) -> KnownFlags:
    """Return the options that a llama-server's ``--help`` lists.

    Reads every layout since options got a line of their own (2024). Options listed only
    to say that they were removed are left out. Any text is accepted; one that is no help
    text gives no options.
    """
    options: dict[str, Option] = {}
    entries: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("-") and _SPELLING.match(line):
            entries.append((line, []))
        elif entries and line.startswith(" "):
            entries[-1][1].append(line.strip())
    for first, continuation in entries:
        spellings, hint, start = _head(first)
        description = "\n".join([start, *continuation]).strip()
        if description.startswith(_REMOVED):
            continue
        option = Option(spellings, hint, description)
        options.update(dict.fromkeys(spellings, option))
    return KnownFlags(options)
