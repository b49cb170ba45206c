"""SHA-256 of files on the far machine, which reads them itself: only the sum comes over."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from contextlib import suppress

import anyio

from gglib.errors import InvalidModelFile, NodeUnreachable, NotConfigured
from gglib.ports.far_files import FarFile
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import Step

__all__ = ["far_sha256"]

#: The far machine gives up what nobody has asked for that long; so do we, sooner, without it.
_ABANDONED_S, _AWAY_S = 60, 45.0
#: A file of any size may take its time, but each byte of it only so much.
_STALL_S = 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_FORGETTING_S = 5.0
_SUM = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


async def far_sha256(
    link: Link, file: FarFile, on_bytes: Callable[[int], None] | None, *, node: str
) -> str:
    """Return the SHA-256 of what a file there holds now; ``on_bytes`` is told of each byte once.

    If cancelled, what computes it there is ended.

    Raises:
        NodeUnreachable: the machine is away, for longer than a cut line takes.
        NotConfigured: no program there computes it.
        InvalidModelFile: the file cannot be read, or not to its end.
    """
    key = secrets.token_hex(8)
    try:
        said = await link.ask("gglib_digest", key, str(_ABANDONED_S), str(file.path))
        word, _, reason = said.strip().partition(" ")
        if word == "no-tool":
            raise NotConfigured(
                f"computing SHA-256 on {node}",
                "it has none of sha256sum, shasum and openssl: install one there",
            )
        if word != "going":
            why = reason or f"its sh said {said.strip()[:200]!r}"
            raise NodeUnreachable(node, Step.SHELL, why, f"is the disk of {node} full?")
        return await _followed(link, key, file, on_bytes or _nobody, node)
    finally:
        with anyio.move_on_after(_FORGETTING_S, shield=True), suppress(NodeUnreachable):
            await link.ask("gglib_forget_digest", key)


def _nobody(_count: int) -> None:
    """Tell nobody."""


async def _followed(
    link: Link, key: str, file: FarFile, on_bytes: Callable[[int], None], node: str
) -> str:
    read_bytes, pause_s = 0, _FIRST_PAUSE_S
    heard_at = moved_at = anyio.current_time()
    while True:
        now = anyio.current_time()
        try:
            said = await link.ask("gglib_digest_state", key, secrets.token_hex(4))
        except NodeUnreachable:
            # It reads on there while the line is made again.
            if now - heard_at > _AWAY_S:
                raise
            moved_at = now
        else:
            heard_at = now
            position = _position(said, file, read_bytes, node)
            if position > read_bytes:
                on_bytes(position - read_bytes)
                read_bytes, moved_at = position, now
            if (found := _SUM.search(said)) is not None:
                return found[0]
        if now - moved_at > _STALL_S:
            reason = f"nothing more of it could be read on {node} for {_STALL_S:g} s"
            raise InvalidModelFile(file.path, f"{reason}; does its disk hang?")
        await anyio.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


def _position(said: str, file: FarFile, read_bytes: int, node: str) -> int:
    """Return how much has been read by now: all of it, where the sum is told.

    Raises:
        InvalidModelFile: it will not be told any more.
    """
    match said.split(maxsplit=2):
        case ["going", position] if position.isdecimal():
            return int(position)
        case ["ended", "0", told] if _SUM.search(told):
            return file.mark.size_bytes
        case ["ended", status, *_]:
            reason = f"cannot be read on {node}; check its permissions"
            if read_bytes or int(status) > 128:
                reason = f"its reading on {node} ended too soon, with status {status}"
        case _:
            reason = f"what read it on {node} is gone; was the machine started anew?"
    raise InvalidModelFile(file.path, reason)
