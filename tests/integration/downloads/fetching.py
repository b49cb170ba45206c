"""Fetch one file and print how it went: the process that is killed, in test_killed.py."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from gglib.bootstrap import SystemClock
from gglib_adapters.downloads import HttpDownloader


async def main(*arguments: str) -> None:
    """Fetch it."""
    url, target, sha256 = arguments
    downloader = HttpDownloader(clock=SystemClock())
    try:
        await downloader.fetch(url, Path(target), sha256=sha256 or None)
    finally:
        await downloader.aclose()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
