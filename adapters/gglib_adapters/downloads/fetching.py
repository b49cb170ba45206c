"""One file on its way: what is there, what is missing, and what the server says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from gglib.errors import DownloadFailed, GglibError
from gglib.ports.downloader import DownloadProgress, OnProgress
from gglib_adapters.downloads.exchange import Interrupted, answered, shown
from gglib_adapters.downloads.partial import PartialFile, Version

if TYPE_CHECKING:
    import httpx

__all__ = ["Fetching"]

#: So much is lost when the process is killed, at the most.
_PIECE_BYTES = 256 << 10


class Fetching:
    """One call of ``fetch``."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        file: PartialFile,
        *,
        sha256: str | None,
        size_bytes: int | None,
        max_bytes: int | None,
        headers: Mapping[str, str],
        on_progress: OnProgress | None,
    ) -> None:
        self._client = client
        self._url = url
        self._shown = shown(url)
        self._source = hashlib.sha256(url.encode(errors="replace")).hexdigest()
        self._file = file
        self._sha256 = sha256
        self._size_bytes = size_bytes
        self._max_bytes = max_bytes
        self._headers = headers
        self._on_progress = on_progress
        self._come_bytes = 0
        self._total_bytes = size_bytes
        self.kept_bytes = file.size_bytes if self._may_go_on() else 0

    def come_bytes(self) -> int:
        """Return how much has come in this call."""
        return self._come_bytes

    async def forget(self) -> None:
        """Throw away what is there."""
        await anyio.to_thread.run_sync(self._file.restart, Version(source=self._source))
        self.kept_bytes = 0

    def tell(self, note: str | None = None) -> None:
        """Tell how far it is."""
        if self._on_progress is not None:
            progress = DownloadProgress(
                done_bytes=self._file.size_bytes,
                total_bytes=self._total_bytes,
                kept_bytes=self.kept_bytes,
                note=note,
            )
            self._on_progress(progress)

    async def go_on(self) -> None:
        """Fetch what is missing.

        Raises:
            Interrupted: some of it is missing still.
        """
        file = self._file
        if file.size_bytes and not self._may_go_on():
            await self.forget()
        while file.hashed_bytes < file.size_bytes:
            self.tell("checking what is there")
            await anyio.to_thread.run_sync(file.hash_on)
        version = file.version
        if version and file.size_bytes and file.size_bytes == version.total_bytes:
            return
        asking = {}
        if file.size_bytes:
            asking["range"] = f"bytes={file.size_bytes}-"
            if version and version.source == self._source and version.validator:
                asking["if-range"] = version.validator
        async with answered(
            self._client, self._url, headers=self._headers, asking=asking
        ) as response:
            if await self._begin(response):
                await self._take(response)

    def _may_go_on(self) -> bool:
        """Return whether what is there may be part of what is asked for."""
        version = self._file.version
        limit = self._size_bytes if self._max_bytes is None else self._max_bytes
        if limit is not None and self._file.size_bytes > limit:
            return False
        if self._sha256 is not None:
            return True
        return version is not None and version.source == self._source and bool(version.validator)

    async def _begin(self, response: httpx.Response) -> bool:
        """Prepare for the body; return whether it is wanted.

        Raises:
            Interrupted: what is there is of another version: it is gone now.
        """
        file = self._file
        first, total = _range_of(response)
        found = Version(
            source=self._source,
            total_bytes=total,
            etag=response.headers.get("etag"),
            last_modified=response.headers.get("last-modified"),
        )
        if response.status_code == 416 and total == file.size_bytes and file.size_bytes:
            return False
        self._check_size(total)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise DownloadFailed(self._shown, "the server sends it compressed, unasked")
        if response.status_code != 200 and (
            first != file.size_bytes or _differ(file.version, found)
        ):
            await self.forget()
            raise Interrupted("the server has another version now")
        if response.status_code == 200:
            self._check_length_is_known(response, total)
            await anyio.to_thread.run_sync(file.restart, found)
            self.kept_bytes = 0
        self._total_bytes = total if total is not None else self._size_bytes
        if self._total_bytes is not None:
            await anyio.to_thread.run_sync(file.check_room, self._total_bytes - file.size_bytes)
        self.tell()
        return True

    def _check_size(self, total: int | None) -> None:
        if total is None:
            return
        if self._size_bytes is not None and total != self._size_bytes:
            reason = f"the server has {total} bytes, expected {self._size_bytes}"
            raise DownloadFailed(self._shown, reason)
        if self._max_bytes is not None and total > self._max_bytes:
            raise DownloadFailed(self._shown, f"{total} bytes are more than {self._max_bytes}")

    def _check_length_is_known(self, response: httpx.Response, total: int | None) -> None:
        chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
        if total is None and not chunked and self._size_bytes is None and self._sha256 is None:
            raise DownloadFailed(self._shown, "the server does not say how long it is")

    async def _take(self, response: httpx.Response) -> None:
        """Write the body down as it comes."""
        limit = self._total_bytes if self._total_bytes is not None else self._max_bytes
        waiting = bytearray()
        failure: GglibError | None = None
        try:
            with anyio.CancelScope() as scope:
                async for chunk in response.aiter_raw():
                    waiting += chunk
                    self._come_bytes += len(chunk)
                    try:
                        if len(waiting) >= _PIECE_BYTES:
                            await self._write(waiting, limit)
                    except GglibError as error:
                        # Left otherwise, the loop would leave httpx's generators half-way.
                        failure = error
                        scope.cancel()
        finally:
            if failure is None:
                with anyio.CancelScope(shield=True):
                    await self._write(waiting, limit)
        if failure is not None:
            raise failure
        if self._total_bytes is not None and self._file.size_bytes < self._total_bytes:
            raise Interrupted(
                f"the connection broke after {self._file.size_bytes} of {self._total_bytes} bytes"
            )

    async def _write(self, waiting: bytearray, limit: int | None) -> None:
        data = bytes(waiting)
        waiting.clear()
        if limit is not None and self._file.size_bytes + len(data) > limit:
            await self.forget()
            raise DownloadFailed(self._shown, f"the server sends more than {limit} bytes")
        await anyio.to_thread.run_sync(self._file.add, data)
        self.tell()


def _range_of(response: httpx.Response) -> tuple[int | None, int | None]:
    """Return where the body begins in the file, and how long the file is."""
    if response.status_code == 200:
        return 0, _number(response.headers.get("content-length"))
    _unit, _, text = response.headers.get("content-range", "").partition(" ")
    span, _, total = text.partition("/")
    return _number(span.partition("-")[0]), _number(total)


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _differ(known: Version | None, found: Version) -> bool:
    """Return whether two answers are surely about different versions."""
    if known is None or known.source != found.source:
        return False
    pairs = ((known.etag, found.etag), (known.total_bytes, found.total_bytes))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)
