"""Ask a llama-server about itself, once per binary."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import anyio
import attrs

__all__ = ["Binary", "ProbeFailed", "describe"]

#: A binary that says nothing for so long is none of ours.
TIMEOUT_S = 20.0

#: The newest --help is 59 kB.
LIMIT_BYTES = 1024 * 1024

CACHE_FILE = "llama-server-help.json"


class ProbeFailed(Exception):
    """The binary could not be asked; the text says why."""


@attrs.frozen
class Binary:
    """What a binary said, and the file it was then."""

    path: Path
    size_bytes: int
    modified_ns: int
    version: str | None
    help_text: str


async def describe(path: Path, cache_dir: Path) -> Binary:
    """Return what ``path --help`` and ``--version`` say.

    Read from ``cache_dir`` while the file's size and modification time are the same.

    Raises:
        ProbeFailed: it cannot be run, does not answer, or is not a llama-server.
    """
    try:
        status = await anyio.to_thread.run_sync(os.stat, path)
    except OSError as problem:
        raise ProbeFailed(f"{path}: {problem.strerror}") from problem
    cache = cache_dir / CACHE_FILE
    entries = await anyio.to_thread.run_sync(_read, cache)
    known = _entry(entries, path, status)
    if known is not None:
        return known
    help_text = await _ask(path, "--help")
    if "--model" not in help_text or "--port" not in help_text:
        first = next((line for line in help_text.splitlines() if line.strip()), "it says nothing")
        raise ProbeFailed(f"{path} is not a llama-server we know; its --help begins: {first[:200]}")
    binary = Binary(
        path, status.st_size, status.st_mtime_ns, _version(await _ask(path, "--version")), help_text
    )
    await anyio.to_thread.run_sync(_write, cache, entries, binary)
    return binary


async def _ask(path: Path, flag: str) -> str:
    """Return what ``path flag`` prints, on either stream.

    The status is not looked at: some builds end ``--help`` with 1.
    """
    output = bytearray()
    try:
        with anyio.fail_after(TIMEOUT_S):
            async with await anyio.open_process(
                [str(path), flag], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
            ) as process:
                assert process.stdout is not None
                async for chunk in process.stdout:
                    output += chunk
                    if len(output) > LIMIT_BYTES:
                        process.kill()
                        raise ProbeFailed(f"{path} {flag} prints more than {LIMIT_BYTES} bytes")
    except TimeoutError as problem:
        raise ProbeFailed(f"{path} {flag} did not end within {TIMEOUT_S:g} s") from problem
    except OSError as problem:
        raise ProbeFailed(f"{path} cannot be run: {problem.strerror}") from problem
    return output.decode(errors="replace")


def _version(text: str) -> str | None:
    for line in text.splitlines():
        if line.startswith("version:"):
            return line.removeprefix("version:").strip()
    return None


def _entry(entries: dict[str, Any], path: Path, status: os.stat_result) -> Binary | None:
    match entries.get(str(path)):
        case {
            "size_bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "version": str() | None as version,
            "help_text": str() as help_text,
        }:
            return Binary(path, status.st_size, status.st_mtime_ns, version, help_text)
    return None


def _read(cache: Path) -> dict[str, Any]:
    """Return the cache's entries; none if it is missing or damaged: it can be made again."""
    try:
        entries = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write(cache: Path, entries: dict[str, Any], binary: Binary) -> None:
    """Add ``binary`` to the cache, atomically; entries of files that are gone are left out."""
    kept = {path: entry for path, entry in entries.items() if Path(path).exists()}
    entry = attrs.asdict(binary)
    del entry["path"]
    kept[str(binary.path)] = entry
    try:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=cache.parent, prefix=cache.name)
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        Path(name).chmod(stat.S_IRUSR | stat.S_IWUSR)
        Path(name).replace(cache)
    except OSError:
        Path(name).unlink(missing_ok=True)
