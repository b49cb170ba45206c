"""The command line's way to a live gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from gglib.errors import (
    GatewayNotRunning,
    GatewayUnreachable,
    GglibError,
    HubAccessDenied,
    HubAnswerWrong,
    HubError,
    HubUnavailable,
    InvalidRequest,
    NotRunning,
    PullNotFound,
    QuantizationNotFound,
    RepositoryNotFound,
)

if TYPE_CHECKING:
    import httpx

    from gglib.gateway.presence import Presence

__all__ = ["GatewayClient", "find_gateway", "require_gateway"]


def find_gateway(data_dir: Path) -> Presence | None:
    """Return the gateway that owns the data directory, if one lives."""
    if not (data_dir / "gateway.json").exists():  # spares the imports below
        return None
    from gglib.gateway.presence import read_presence

    return read_presence(data_dir)


def require_gateway(data_dir: Path) -> Presence:
    """Return the gateway that owns the data directory.

    Raises:
        GatewayNotRunning: none does.
    """
    gateway = find_gateway(data_dir)
    if gateway is None:
        raise GatewayNotRunning(data_dir)
    return gateway


class GatewayClient:
    """Talks to a gateway with the local admin token."""

    def __init__(self, presence: Presence, *, silence_timeout_s: float | None = None) -> None:
        """``silence_timeout_s``: how long the gateway may say nothing; ``None`` = for ever."""
        import ssl

        import httpx

        from gglib.gateway.pinning import pinned

        # The note that names it says what it shows, and only this user can write the note. Over
        # plain HTTP nothing is to be trusted.
        shown = presence.certificate
        trust = pinned(shown) if shown else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._address = presence.address
        self._client = httpx.AsyncClient(
            base_url=presence.address,
            headers={"authorization": f"Bearer {presence.admin_token}"},
            timeout=httpx.Timeout(10.0, read=silence_timeout_s),
            verify=trust,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def running(self) -> list[dict[str, Any]]:
        """Return what is in memory, as ``/running`` tells it."""
        found: list[dict[str, Any]] = (await self._call("GET", "/running"))["running"]
        return found

    async def pool(self) -> dict[str, Any]:
        """Return what is in memory and what there is room for, as ``/admin/pool`` tells it."""
        return await self._call("GET", "/admin/pool")

    async def queue(self) -> list[dict[str, Any]]:
        """Return who waits, in order, as ``/admin/queue`` tells it."""
        found: list[dict[str, Any]] = (await self._call("GET", "/admin/queue"))["queue"]
        return found

    async def metrics(self) -> str:
        """Return what ``/metrics`` tells, in Prometheus' text format."""
        return (await self._ask("GET", "/metrics", "")).text

    async def events(self) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Yield what happens from now on: each event's name and fields. Close it.

        Raises:
            GatewayUnreachable: the gateway is gone, or has said nothing for half a minute.
        """
        import json

        import httpx

        name = ""
        # It sends a comment every ten seconds, whatever happens.
        timeout = httpx.Timeout(10.0, read=30.0)
        try:
            async with self._client.stream("GET", "/admin/events", timeout=timeout) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _error_of(answer.json()["error"], "")
                async for line in answer.aiter_lines():
                    kind, _, value = line.partition(": ")
                    if kind == "event":
                        name = value
                    elif kind == "data":
                        yield name, json.loads(value)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    async def why(self, name: str) -> dict[str, Any]:
        """Return a model's story, as ``/admin/why`` tells it."""
        return await self._call("GET", f"/admin/why/{quote(name, safe='/')}")

    async def reload(self) -> dict[str, Any]:
        """Have the gateway read its settings anew, and return what that has changed.

        Raises:
            InvalidRequest: they are wrong, and nothing has changed.
        """
        return await self._call("POST", "/admin/config/reload")

    async def load(self, name: str) -> None:
        """Have a model loaded, and wait until it is."""
        await self._call("POST", f"/admin/models/{quote(name, safe='/')}/load")

    async def unload(self, name: str, *, force: bool) -> None:
        """Have a model unloaded, and wait until it is.

        Raises:
            NotRunning: the gateway has no server of it.
        """
        query = "?force=true" if force else ""
        await self._call("POST", f"/admin/models/{quote(name, safe='/')}/unload{query}", name)

    async def downloads(self) -> list[dict[str, Any]]:
        """Return pulls that wait, are under way, or have ended lately."""
        found: list[dict[str, Any]] = (await self._call("GET", "/admin/models/downloads"))[
            "downloads"
        ]
        return found

    async def cancel_download(self, pull_id: str) -> dict[str, Any]:
        """Give up a pull, and return what has become of it.

        Raises:
            PullNotFound: there is none of that id.
        """
        path = f"/admin/models/downloads/{quote(pull_id, safe='')}"
        return await self._call("DELETE", path, pull_id)

    async def pull(self, asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Have a model fetched, and tell how far it is, until it has ended.

        Raises:
            HubError: the hub has no such model, or does not give it.
            GatewayUnreachable: the gateway ended meanwhile; its next one goes on.
        """
        import httpx

        path = "/admin/models/pull"
        try:
            async with self._client.stream("POST", path, json=asked) as response:
                if not response.is_success:
                    await response.aread()
                    raise _error_of(response.json()["error"], "")
                state = ""
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        told: dict[str, Any] = json.loads(line.removeprefix("data: "))
                        state = told["state"]
                        yield told
        except httpx.HTTPError as error:
            raise GatewayUnreachable(self._address, str(error) or type(error).__name__) from None
        if state in {"queued", "running", ""}:
            raise GatewayUnreachable(self._address, "it has ended; its next start goes on")

    async def _call(self, method: str, path: str, name: str = "") -> dict[str, Any]:
        response = await self._ask(method, path, name)
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise self._stranger() from None
        return answer

    async def _ask(self, method: str, path: str, name: str) -> httpx.Response:
        import httpx

        try:
            response = await self._client.request(method, path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.is_success:
            return response
        try:
            told = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            raise self._stranger() from None
        raise _error_of(told, name)

    def _stranger(self) -> GatewayUnreachable:
        """Return the error for what answers where the gateway should."""
        return GatewayUnreachable(self._address, "what answers there is no gateway")

    def _unreachable(self, error: httpx.HTTPError) -> GatewayUnreachable:
        return GatewayUnreachable(self._address, str(error) or type(error).__name__)


#: What the hub says, by the code that the gateway tells it with.
_OF_THE_HUB: dict[str, type[HubError]] = {
    "repository_not_found": RepositoryNotFound,
    "quantization_not_found": QuantizationNotFound,
    "hub_access_denied": HubAccessDenied,
    "hub_unavailable": HubUnavailable,
    "hub_answer_wrong": HubAnswerWrong,
}


def _error_of(error: dict[str, Any], name: str) -> GglibError:
    code = str(error.get("code"))
    if code == "not_running":
        return NotRunning(name)
    if code == "pull_not_found":
        return PullNotFound(name)
    if code in _OF_THE_HUB:
        return _OF_THE_HUB[code](error["message"])
    return InvalidRequest(error["message"], error.get("param"), error.get("code"))
