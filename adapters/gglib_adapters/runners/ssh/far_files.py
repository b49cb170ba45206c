"""Model files on the far machine: listed, read in pieces, and summed there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gglib.domain.file_mark import FileMark
from gglib.errors import InvalidModelFile, InvalidValue, ModelFileMissing
from gglib.ports.far_files import FarFile, FarFiles, FarFolder, Missing
from gglib_adapters.runners.ssh.far_digests import far_sha256
from gglib_adapters.runners.ssh.link import Link

__all__ = ["SshFiles"]

_BLOCK_BYTES = 65_536
_HEAD_BYTES = 4_096
#: More than this in one answer is asked for in several.
_MOST_BYTES = 4 * 2**20
_BATCH = 200
_MOST_FILES = 20_000
#: A folder on a disk that sleeps, or with all of a home below it.
_LISTING_S = 120.0
_SECOND_NS = 1_000_000_000
_CHANGED = "it changed while it was read; try again when it is complete"
_WRONG = {
    "directory": "a directory; name the .gguf file in it",
    "special": "not a regular file",
    "closed": "may not be read; check its permissions",
}


class SshFiles(FarFiles):
    """Asks ``far_machine.sh``."""

    __slots__ = ("_link", "_node")

    def __init__(self, link: Link, *, node: str) -> None:
        self._link = link
        self._node = node

    @property
    def node(self) -> str:
        """See ``FarFiles``."""
        return self._node

    async def look(self, paths: Sequence[str]) -> list[FarFile | Missing]:
        """See ``FarFiles``. A path with a NUL or a line's end in it leads to nothing."""
        found: dict[str, FarFile | Missing] = {}
        sayable = [path for path in dict.fromkeys(paths) if _is_sayable(path)]
        for batch in _batches(sayable):
            lines = (await self._link.ask("gglib_marks", *batch)).split("\n")
            found |= {path: _found(line) for path, line in zip(batch, lines, strict=False)}
        return [found.get(path, Missing()) for path in paths]

    async def models_in(self, folder: str) -> FarFolder:
        """See ``FarFiles``."""
        where = Path(folder)
        if not _is_sayable(folder):
            raise ModelFileMissing(where)
        # The folder has a line of its own, and one more than may be tells that there are more.
        lines = await self._link.ask(
            "gglib_models", folder, str(_MOST_FILES + 1), timeout_s=_LISTING_S
        )
        head, *rest = lines.removesuffix("\n").split("\n")
        word, _, path = head.partition(" ")
        if word == "missing":
            raise ModelFileMissing(where)
        if word == "file":
            reason = "not a folder; `gglib model add` takes a file"
            raise InvalidModelFile(where, reason)
        if word != "folder":
            raise InvalidModelFile(where, "cannot be listed; check its permissions")
        if len(rest) > _MOST_FILES:
            raise InvalidModelFile(where, f"has more than {_MOST_FILES} model files; name less")
        files = [file for line in rest if (file := _listed(line)) is not None]
        trouble = [line.removeprefix("left ") for line in rest if line.startswith("left ")]
        return FarFolder(
            path=Path(path),
            files=tuple(sorted(files, key=lambda file: file.path)),
            trouble=tuple(trouble),
        )

    async def heads(self, paths: Sequence[Path]) -> list[bytes]:
        """See ``FarFiles``."""
        heads: list[bytes] = []
        for batch in _batches([str(path) for path in paths]):
            said = await self._link.ask_bytes("gglib_heads", *batch)
            said = said.ljust(len(batch) * _HEAD_BYTES, b"\0")
            heads += [
                said[begin : begin + _HEAD_BYTES]
                for begin in range(0, len(batch) * _HEAD_BYTES, _HEAD_BYTES)
            ]
        return heads

    async def read(self, file: FarFile, offset: int, count: int) -> bytes:
        """See ``FarFiles``. What is read is whole blocks of 64 KiB."""
        pieces = []
        end = min(offset + count, file.mark.size_bytes)
        while offset < end:
            block = offset // _BLOCK_BYTES
            blocks = -(-min(end - block * _BLOCK_BYTES, _MOST_BYTES) // _BLOCK_BYTES)
            said = await self._link.ask_bytes(
                "gglib_piece", str(file.path), str(block), str(blocks)
            )
            mark, _, content = said.partition(b"\n")
            if _mark(mark.decode(errors="replace").split(" ")) != file.mark:
                raise InvalidModelFile(file.path, _CHANGED)
            piece = content[offset - block * _BLOCK_BYTES :][: end - offset]
            if not piece:
                raise InvalidModelFile(file.path, f"cannot be read at byte {offset}")
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    async def sha256(self, file: FarFile, on_bytes: Callable[[int], None] | None = None) -> str:
        """See ``FarFiles``."""
        found = await far_sha256(self._link, file, on_bytes, node=self._node)
        (after,) = await self.look([str(file.path)])
        if isinstance(after, Missing) or after.mark != file.mark:
            raise InvalidModelFile(file.path, _CHANGED)
        return found


def _is_sayable(path: str) -> bool:
    return bool(path) and "\0" not in path and "\n" not in path


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(items), _BATCH):
        yield items[begin : begin + _BATCH]


def _found(line: str) -> FarFile | Missing:
    size, _, rest = line.partition(" ")
    seconds, _, path = rest.partition(" ")
    mark = _mark([size, seconds])
    if mark is None or not path.startswith("/"):
        return Missing(_WRONG.get(line, ""))
    return FarFile(path=Path(path), mark=mark) if mark.size_bytes else Missing("empty")


def _listed(line: str) -> FarFile | None:
    words = line.split(" ", 4)
    if len(words) < 5 or words[0] != "file" or not words[4].startswith("/"):
        return None
    mark = _mark(words[1:3])
    return None if mark is None else FarFile(path=Path(words[4]), mark=mark, identity=words[3])


def _mark(words: Sequence[str]) -> FileMark | None:
    """Return a file's mark: its time is in whole seconds, which is what every ``stat`` tells."""
    try:
        size, seconds = map(int, words)
        return FileMark(size_bytes=size, mtime_ns=seconds * _SECOND_NS)
    except (ValueError, InvalidValue):
        return None
