"""Fetching over HTTP: goes on where it was, waits out what passes, verifies what it got."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from gglib.errors import DownloadFailed, HashMismatch
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.downloader import Download, Downloader, OnProgress
from gglib_adapters.downloads.exchange import Interrupted, answered, shown
from gglib_adapters.downloads.fetching import Fetching
from gglib_adapters.downloads.partial import PartialFile

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpDownloader", "open_http_downloader"]

T = TypeVar("T")

#: A connection that brought so much was worth making: the count of failures begins anew.
_WORTH_BYTES = 1 << 20
_MAX_FAILURES = 6
#: As long as nobody was ever there: without a network one is not to wait for long.
_MAX_UNREACHED = 3
_FIRST_WAIT_S, _MAX_WAIT_S = 0.5, 30.0
#: Who asks for more patience than this is told of as an error.
_MAX_RETRY_AFTER_S = 300.0
_CONNECT_TIMEOUT_S, _SILENCE_TIMEOUT_S = 15.0, 30.0


class HttpDownloader(Downloader):
    """Fetches with httpx; proxies and certificates are those of the environment.

    Call ``aclose`` at the end.
    """

    __slots__ = ("_client", "_clock", "_silence_timeout_s")

    def __init__(self, *, clock: Clock, silence_timeout_s: float = _SILENCE_TIMEOUT_S) -> None:
        """``silence_timeout_s``: how long a server may send nothing."""
        self._clock = clock
        self._silence_timeout_s = silence_timeout_s
        self._client: httpx.AsyncClient | None = None

    async def fetch(
        self,
        url: str,
        target: Path,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        max_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Download:
        """See ``Downloader``."""
        client = await self._opened()
        expected = None if sha256 is None else sha256.lower()
        file = await anyio.to_thread.run_sync(PartialFile, target, shown(url))
        fetching = Fetching(
            client,
            url,
            file,
            sha256=expected,
            size_bytes=size_bytes,
            max_bytes=max_bytes,
            headers=headers or {},
            on_progress=on_progress,
        )
        try:
            await self._patiently(fetching.go_on, shown(url), fetching.tell, fetching.come_bytes)
            actual = file.sha256()
            if expected is not None and actual != expected:
                if fetching.kept_bytes:
                    # Perhaps only what was there was wrong, as after a loss of power.
                    await fetching.forget()
                    await self._patiently(
                        fetching.go_on, shown(url), fetching.tell, fetching.come_bytes
                    )
                    actual = file.sha256()
                if actual != expected:
                    file.discard()
                    raise HashMismatch(shown(url), expected, actual)
            await anyio.to_thread.run_sync(file.finish)
        finally:
            file.close()
        version = file.version
        return Download(
            path=target,
            size_bytes=file.size_bytes,
            sha256=actual,
            etag=version.etag if version else None,
            kept_bytes=fetching.kept_bytes,
        )

    async def fetch_bytes(
        self, url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """See ``Downloader``."""
        client = await self._opened()

        async def ask() -> bytes:
            body = bytearray()
            too_long = False
            async with answered(client, url, headers=headers or {}, asking={}) as response:
                with anyio.CancelScope() as scope:
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > max_bytes:
                            # Left otherwise, the loop would leave httpx's generators half-way.
                            too_long = True
                            scope.cancel()
            if too_long:
                raise DownloadFailed(shown(url), f"it is longer than {max_bytes} bytes")
            return bytes(body)

        return await self._patiently(ask, shown(url), lambda _note: None, lambda: 0)

    async def aclose(self) -> None:
        """Close the HTTP client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            # 0.2 s of imports and certificates: not on the event loop.
            client = await anyio.to_thread.run_sync(self._make_client)
            if self._client is None:
                self._client = client
        return self._client

    def _make_client(self) -> httpx.AsyncClient:
        library: Any = importlib.import_module("httpx")
        client: httpx.AsyncClient = library.AsyncClient(
            timeout=library.Timeout(self._silence_timeout_s, connect=_CONNECT_TIMEOUT_S),
            limits=library.Limits(max_connections=None, max_keepalive_connections=0),
            headers={"user-agent": "gglib"},
        )
        return client

    async def _patiently(
        self,
        attempt: Callable[[], Awaitable[T]],
        shown_url: str,
        tell: Callable[[str], None],
        come_bytes: Callable[[], int],
    ) -> T:
        """Return what ``attempt`` returns, tried again as long as it gets anywhere."""
        failures, reached = 0, False
        while True:
            before = come_bytes()
            try:
                return await attempt()
            except Interrupted as interruption:
                failures = 1 if come_bytes() - before >= _WORTH_BYTES else failures + 1
                reason, asked_s = interruption.reason, interruption.wait_s
                reached = reached or not interruption.unreached
            if asked_s is not None and asked_s > _MAX_RETRY_AFTER_S:
                reason = f"{reason}, and asks to be left alone for {asked_s:.0f} s"
                raise DownloadFailed(shown_url, f"{reason}; try again then")
            if failures >= (_MAX_FAILURES if reached else _MAX_UNREACHED):
                reason = f"{reason} ({failures} times in a row)"
                raise DownloadFailed(shown_url, f"{reason}; try again, it goes on from there")
            wait_s = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2 ** (failures - 1))
            if asked_s is not None:
                wait_s = max(wait_s, asked_s)
            tell(f"{reason}; trying again in {wait_s:g} s")
            await self._clock.sleep(wait_s)


@asynccontextmanager
async def open_http_downloader(context: AdapterContext) -> AsyncIterator[HttpDownloader]:
    """Open a downloader; it has no settings."""
    async with aclosing(HttpDownloader(clock=context.clock)) as downloader:
        yield downloader
