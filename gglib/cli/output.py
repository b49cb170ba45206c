"""What commands print: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

__all__ = [
    "duration",
    "print_event",
    "print_json",
    "print_table",
    "printable",
    "say",
    "size",
    "tell",
]


def say(text: str) -> None:
    """Print a line of data; what the terminal has no letters for, as their numbers."""
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError as error:
        known = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
        sys.stdout.write(known + "\n")


def printable(text: str) -> str:
    """Return a file's text without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else _number_of(letter) for letter in text)


def _number_of(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def tell(text: str) -> None:
    """Print a line about what is going on."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """Print ``value`` as JSON, indented for a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    _say_json(value, indent)


def print_event(value: Any) -> None:
    """Print ``value`` as one line of JSON, at once: one of a stream of them."""
    _say_json(value, None)
    sys.stdout.flush()


def _say_json(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    sys.stdout.write(text + "\n")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns."""
    widths = [len(heading) for heading in headings]
    for row in rows:
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    for row in (headings, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def size(size_bytes: int) -> str:
    """Return a size as people read it."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a duration as people read it."""
    whole = int(max(0.0, seconds))
    for limit, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= limit:
            return f"{whole // limit}{unit}"
    return f"{whole}s"
