"""The Hugging Face hub, by the part of its HTTP API that gglib needs.

Two calls list everything, and files are fetched by ``Downloader``, which counts, bounds, verifies
and resumes to the byte. The hub's own library does none of this for a killed process, and would
bring a second HTTP client; the tests ask it whether this one reads the API as it does.

Source: huggingface_hub 2.4 (hf_api.py, utils/_http.py).
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urljoin, urlsplit

import anyio.to_thread

from gglib.domain.hub import FoundRepository, HubFile, HubRevision
from gglib.errors import (
    HubAccessDenied,
    HubAnswerWrong,
    HubUnavailable,
    InvalidValue,
    RepositoryNotFound,
)
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.model_hub import FileLocation, ModelHub
from gglib_adapters.hub.token import endpoint_of, find_token

if TYPE_CHECKING:
    import httpx

__all__ = ["HuggingFaceHub", "open_hugging_face_hub"]

_TIMEOUT_S = 20.0
_MAX_ANSWER_BYTES = 32 << 20
_MAX_REDIRECTS = 5
_ATTEMPTS = 3
#: The longest that one attempt waits for the hub to recover.
_MAX_PAUSE_S = 30.0
_MAX_CLOSE_NAMES = 3
#: What data of another shape than is expected raises.
_NOT_UNDERSTOOD = (KeyError, TypeError, AttributeError, ValueError)


@asynccontextmanager
async def open_hugging_face_hub(context: AdapterContext) -> AsyncIterator[ModelHub]:
    """Enter the hub at ``HF_ENDPOINT``; nothing is asked, and nothing imported, before a call."""
    hub = HuggingFaceHub(endpoint_of(os.environ), find_token(os.environ), context.clock)
    try:
        yield hub
    finally:
        await hub.aclose()


class HuggingFaceHub(ModelHub):
    """Speaks to one hub with one token, which no other host is told."""

    __slots__ = ("_client", "_clock", "_endpoint", "_token")

    def __init__(self, endpoint: str, token: str | None, clock: Clock) -> None:
        self._endpoint = endpoint
        self._token = token
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the connections, if there are any."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def search(self, text: str, *, limit: int = 20) -> Sequence[FoundRepository]:
        """Return repositories with GGUF files that ``text`` finds; see the port."""
        answer = await self._ask(
            "/api/models",
            {"search": text, "filter": "gguf", "sort": "downloads", "limit": str(limit)},
            what="the search",
        )
        if not isinstance(answer, list):
            raise HubAnswerWrong(f"the search at {self._endpoint} was answered with no list")
        found = []
        for each in answer[:limit]:
            try:
                found.append(_found(each))
            except (InvalidValue, *_NOT_UNDERSTOOD):
                # One that cannot be pulled is none.
                continue
        return found

    async def revision(self, repository: str, revision: str | None = None) -> HubRevision:
        """Return the commit that ``revision`` is now, and the GGUF files there; see the port."""
        path = f"/api/models/{repository}"
        if revision is not None:
            path += f"/revision/{quote(revision, safe='')}"
        answer = await self._ask(path, {"blobs": "true"}, what=repository, revision=revision)
        try:
            siblings = answer["siblings"]
            files = [_file(each) for each in siblings if _is_model_file(each["rfilename"])]
            return HubRevision(repository=repository, commit=answer["sha"], files=files)
        except InvalidValue as error:
            raise HubAnswerWrong(f"{self._endpoint} says of {repository}: {error}") from error
        except _NOT_UNDERSTOOD as error:
            raise HubAnswerWrong(
                f"{self._endpoint} says of {repository} what cannot be understood: {error!r}"
            ) from error

    def location(self, repository: str, commit: str, path: str) -> FileLocation:
        """Return where a file of that commit is fetched; see the port."""
        url = f"{self._endpoint}/{repository}/resolve/{commit}/{quote(path)}"
        return FileLocation(url=url, headers=self._headers)

    @property
    def _headers(self) -> Mapping[str, str]:
        return {} if self._token is None else {"authorization": f"Bearer {self._token}"}

    async def _ask(
        self, path: str, query: Mapping[str, str], *, what: str, revision: str | None = None
    ) -> Any:
        """Return the JSON at ``path``, tried again while the hub is busy."""
        url = f"{self._endpoint}{path}"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                status, headers, body = await self._get(url, query)
            except HubUnavailable:
                if attempt == _ATTEMPTS:
                    raise
                await self._clock.sleep(2.0 ** (attempt - 1) / 2)
                continue
            if status == 200:
                return self._decoded(body, what)
            if status != 429 and status < 500:
                await self._refuse(status, headers, what, revision)
            pause_s = _pause_s(headers, attempt)
            if attempt == _ATTEMPTS or pause_s > _MAX_PAUSE_S:
                reason = "too many requests" if status == 429 else f"status {status}"
                raise HubUnavailable(
                    f"{self._endpoint} cannot tell of {what} now ({reason}); try again in "
                    f"{max(1, round(pause_s))} s",
                    pause_s,
                )
            await self._clock.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    async def _get(
        self, url: str, query: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return the answer's status, headers and body. Redirects stay at the hub."""
        import httpx

        client = await self._opened()
        params: Mapping[str, str] | None = query
        try:
            for _ in range(_MAX_REDIRECTS):
                async with client.stream(
                    "GET", url, params=params, headers=self._headers
                ) as response:
                    target = response.headers.get("location")
                    if not response.is_redirect or target is None:
                        return response.status_code, response.headers, await _bounded(response)
                    # What a repository was renamed to. The query is part of the new address.
                    url, params = urljoin(str(response.url), target), None
                    if urlsplit(url)[:2] != urlsplit(self._endpoint)[:2]:
                        raise HubAnswerWrong(f"{self._endpoint} leads elsewhere: to {url[:200]}")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise HubUnavailable(
                f"{self._endpoint} does not answer: {str(error) or type(error).__name__}; check "
                "the network, a proxy (HTTPS_PROXY), or HF_ENDPOINT"
            ) from error
        raise HubAnswerWrong(f"{self._endpoint} redirects without end")

    async def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            # 0.2 s of imports and certificates: not on the event loop.
            client = await anyio.to_thread.run_sync(_make_client)
            if self._client is None:
                self._client = client
        return self._client

    def _decoded(self, body: bytes, what: str) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise HubAnswerWrong(
                f"{self._endpoint} tells of {what} in no JSON; is it a hub?"
            ) from error

    async def _refuse(
        self, status: int, headers: Mapping[str, str], what: str, revision: str | None
    ) -> NoReturn:
        code = headers.get("x-error-code", "")
        page = f"{self._endpoint}/{what}"
        if code == "RevisionNotFound":
            raise RepositoryNotFound(f"{what} has no branch, tag or commit '{revision}'")
        if code == "GatedRepo":
            if self._token is None:
                raise HubAccessDenied(
                    f"{what} is gated: accept its terms at {page}, make a token at "
                    f"{self._endpoint}/settings/tokens and set HF_TOKEN"
                )
            raise HubAccessDenied(
                f"{what} is gated, and your token's owner is not let in: accept its terms at {page}"
            )
        if code == "RepoNotFound" or status == 404:
            close = await self._close_names(what)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            private = "" if self._token else " (a private one needs HF_TOKEN)"
            raise RepositoryNotFound(f"{self._endpoint} has no repository {what}{private}{meant}")
        if status in {401, 403}:
            if self._token is None:
                raise HubAccessDenied(
                    f"{what} needs a token: make one at {self._endpoint}/settings/tokens and "
                    "set HF_TOKEN"
                )
            raise HubAccessDenied(
                f"{self._endpoint} does not take your token for {what} ({status}); make another "
                f"at {self._endpoint}/settings/tokens and set HF_TOKEN"
            )
        raise HubAnswerWrong(f"{self._endpoint} answered {status} when asked for {what}")

    async def _close_names(self, repository: str) -> list[str]:
        """Return repositories of that name, or of that owner, whose names are close."""
        owner, _, name = repository.partition("/")
        known: dict[str, None] = {}
        for query in ({"search": name}, {"author": owner}):
            asked = {**query, "filter": "gguf", "sort": "downloads", "limit": "100"}
            try:
                status, _, body = await self._get(f"{self._endpoint}/api/models", asked)
                answer = self._decoded(body, "the search") if status == 200 else []
                known |= {_found(each).repository: None for each in answer}
            except (HubAnswerWrong, HubUnavailable, InvalidValue, *_NOT_UNDERSTOOD):
                continue
        close = difflib.get_close_matches(repository, known, n=_MAX_CLOSE_NAMES, cutoff=0.6)
        same_name = [each for each in known if each.partition("/")[2] == name]
        return list(dict.fromkeys([*close, *same_name]))[:_MAX_CLOSE_NAMES]


def _make_client() -> httpx.AsyncClient:
    import httpx

    # The user's proxy is used, as every program of the hub's does.
    return httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False)


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise HubAnswerWrong(f"{response.url.host} sends more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _pause_s(headers: Mapping[str, str], attempt: int) -> float:
    said = headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() else 2.0 ** (attempt - 1)


def _is_model_file(path: Any) -> bool:
    return isinstance(path, str) and path.lower().endswith(".gguf")


def _file(sibling: Mapping[str, Any]) -> HubFile:
    lfs = sibling.get("lfs") or {}
    size_bytes: Any = lfs.get("size", sibling.get("size"))
    return HubFile(path=sibling["rfilename"], size_bytes=size_bytes, sha256=lfs.get("sha256"))


def _found(each: Mapping[str, Any]) -> FoundRepository:
    return FoundRepository(
        repository=each["id"],
        downloads=int(each.get("downloads") or 0),
        likes=int(each.get("likes") or 0),
        updated_at=each.get("lastModified"),
        gated=bool(each.get("gated")),
    )
