"""One request and its answer, redirects followed: what it means for a download."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

import attrs

from gglib.errors import DownloadNotFound, DownloadRefused, InvalidValue

if TYPE_CHECKING:
    import httpx

__all__ = ["Interrupted", "answered", "shown"]

_MAX_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}
_GONE = {404, 410}
#: 416: what was asked for begins where the file ends, or behind.
_USEFUL = {200, 206, 416}
_PORTS = {"http": 80, "https": 443}
_AN_ADDRESS = "an http or https address"


@attrs.define(eq=False, slots=False)
class Interrupted(Exception):
    """No answer, or not to its end: the same may be asked again."""

    reason: str
    wait_s: float | None = None
    """How long the server asks to be left alone."""
    unreached: bool = False
    """Nobody was there at all."""


def shown(url: str) -> str:
    """Return ``url`` as it may be shown: passwords, and queries that sign it, are left out."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@asynccontextmanager
async def answered(
    client: httpx.AsyncClient, url: str, *, headers: Mapping[str, str], asking: Mapping[str, str]
) -> AsyncIterator[httpx.Response]:
    """Hold the answer to GET ``url`` for the block: one of 200, 206 or 416, its body unread.

    ``headers`` go to the host of ``url`` alone; ``asking`` to every host.

    Raises:
        Interrupted: nobody answers, or not now; also if the body breaks off in the block.
        DownloadNotFound: it is not there.
        DownloadRefused: it is not given.
        InvalidValue: ``url`` is none that can be fetched.
    """
    import httpx

    home = _origin(url)
    here = url
    try:
        for _ in range(_MAX_REDIRECTS):
            sent = {**asking, "accept-encoding": "identity"}
            if _origin(here) == home:
                sent = {**headers, **sent}
            async with client.stream("GET", here, headers=sent) as response:
                if response.status_code not in _REDIRECTS:
                    _refuse(response, here)
                    yield response
                    return
                here = _next(response, here)
        raise DownloadRefused(shown(url), 310, f"more than {_MAX_REDIRECTS} redirects")
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Interrupted(_said(error), unreached=True) from error
    except httpx.TimeoutException as error:
        raise Interrupted("the server says nothing") from error
    except httpx.TransportError as error:
        raise Interrupted(_said(error)) from error
    except httpx.InvalidURL:
        raise InvalidValue("url", shown(url), _AN_ADDRESS) from None


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValue("url", shown(url), _AN_ADDRESS) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidValue("url", shown(url), _AN_ADDRESS)
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]


def _next(response: httpx.Response, here: str) -> str:
    """Return where a redirect leads."""
    place: str = response.headers.get("location", "")
    status = response.status_code
    if not place:
        raise DownloadRefused(shown(here), status, "a redirect to nowhere")
    try:
        there = urljoin(here, place)
        scheme, _, _ = _origin(there)
    except ValueError:  # of which InvalidValue is one
        raise DownloadRefused(shown(here), status, "a redirect to no http address") from None
    if here.startswith("https:") and scheme != "https":
        raise DownloadRefused(shown(here), status, "a redirect from https to http")
    return there


def _refuse(response: httpx.Response, here: str) -> None:
    status = response.status_code
    if status in _USEFUL:
        return
    if status in _GONE:
        raise DownloadNotFound(shown(here))
    if status in _PASSING or status >= 500:
        raise Interrupted(f"the server answers {status}", _retry_after_s(response))
    raise DownloadRefused(shown(here), status, response.reason_phrase or "no reason given")


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return what ``Retry-After`` says, as seconds or as a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _said(error: httpx.TransportError) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
