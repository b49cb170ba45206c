"""Keys as they are pressed, without a line's end, from the terminal of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["pressed", "until_pressed"]


@contextmanager
def pressed() -> Iterator[int | None]:
    """Have keys come at once, unseen, for the block; yields where to read them.

    ``None``: there is no such terminal. Ctrl-C interrupts as ever; Ctrl-Z, which would leave
    half a picture behind, does nothing.
    """
    try:
        import termios
    except ImportError:  # pragma: no cover - Windows
        yield None
        return
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = termios.tcgetattr(descriptor)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    quiet[6][termios.VMIN] = 1
    quiet[6][termios.VTIME] = 0
    quiet[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield descriptor
    finally:
        # What was typed ahead is for nobody.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


async def until_pressed(descriptor: int | None, keys: bytes) -> None:
    """Return when one of ``keys`` is pressed, or the terminal is gone; without one, never."""
    if descriptor is None:
        await anyio.sleep_forever()
        return
    while True:
        await anyio.wait_readable(descriptor)
        try:
            read = os.read(descriptor, 64)
        except OSError:
            return
        if not read or any(key in keys for key in read):
            return
