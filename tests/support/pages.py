"""Pages of the documentation: their blocks, the files they have readers save, what they type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["FOLLOWED", "ROOT", "Block", "blocks_of"]

ROOT = Path(__file__).resolve().parents[2]

#: Pages that are followed to the letter, by tests/docs/test_how_tos.py.
FOLLOWED = tuple(
    ROOT / "docs" / "how-to" / name
    for name in (
        "bring-models-you-have.md",
        "come-from-llama-swap.md",
        "manage-your-models.md",
        "test-with-the-mock.md",
        "use-as-a-library.md",
        "write-a-runner.md",
    )
)

_BLOCK = re.compile(r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED = re.compile(r"[Ss]ave (?:this|it) as\s+`([^`]+)`[^`]*\Z")


class Block(NamedTuple):
    """A block of code. ``file``: what the words before it say to save it as."""

    language: str
    code: str
    line: int
    file: str | None


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text()
    end = 0
    for block in _BLOCK.finditer(text):
        saved = _SAVED.search(text[end : block.start()])
        line = text.count("\n", 0, block.start()) + 1
        yield Block(block["language"], block["code"], line, saved[1] if saved else None)
        end = block.end()
