"""What far servers print: the last lines, and those that come later."""

from __future__ import annotations

from gglib_adapters.runners.ssh.link import Link

__all__ = ["OutputReader"]

_FIRST_LOOK_BYTES = 65_536
_LONGEST_LOOK_BYTES = 1024 * 1024


class OutputReader:
    """Reads one server's lines, the last ones first, then what is new."""

    __slots__ = ("_link", "_pending", "_position", "_server_id", "running")

    def __init__(self, link: Link, server_id: str) -> None:
        self._link = link
        self._server_id = server_id
        self._position = 0
        self._pending = b""
        self.running = False
        """Whether the server ran when this read last."""

    async def tail(self, lines: int, *, unfinished: bool = True) -> list[str]:
        """Return the last ``lines`` lines; with ``unfinished``, the one still being written too.

        Raises:
            NodeUnreachable: the machine cannot be reached.
        """
        look = _FIRST_LOOK_BYTES
        content, start = await self._read("log", -look)
        while content.count(b"\n") < lines and start > 0 and look < _LONGEST_LOOK_BYTES:
            look *= 4
            content, start = await self._read("log", -look)
        self._position = start + len(content)
        if content.count(b"\n") < lines and start == 0:
            content = (await self._read("log.1", -look))[0] + content
        if not unfinished:
            head, newline, self._pending = content.rpartition(b"\n")
            content = head + newline
        return _lines(content)[-lines:] if lines > 0 else []

    async def news(self) -> list[str]:
        """Return the lines that were finished since; the unfinished one too after the end.

        Raises:
            NodeUnreachable: the machine cannot be reached.
        """
        read, start = await self._read("log", self._position)
        self._position = start + len(read)
        self._pending += read
        if not self.running and not read:
            finished, self._pending = self._pending, b""
        else:
            head, newline, self._pending = self._pending.rpartition(b"\n")
            finished = head + newline
        return _lines(finished)

    async def _read(self, file: str, position: int) -> tuple[bytes, int]:
        """Return what is there from ``position`` on, and where that began."""
        said = await self._link.ask_bytes("gglib_read", self._server_id, file, str(position))
        state, _, rest = said.partition(b"\n")
        self.running = state.startswith(b"running")
        head, _, content = rest.partition(b"\n")
        return content, int(head.split()[1]) if head else 0


def _lines(content: bytes) -> list[str]:
    lines = content.decode(errors="replace").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]
