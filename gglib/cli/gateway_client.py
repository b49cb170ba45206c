"""The command line's way to a live gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from gglib.errors import (
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
    from gglib.gateway.presence import Presence

__all__ = ["GatewayClient", "find_gateway"]


def find_gateway(data_dir: Path) -> Presence | None:
    """Return the gateway that owns the data directory, if one lives."""
    if not (data_dir / "gateway.json").exists():  # spares the imports below
        return None
    from gglib.gateway.presence import read_presence

    return read_presence(data_dir)


class GatewayClient:
    """Talks to a gateway with the local admin token."""

    def __init__(self, presence: Presence) -> None:
        import httpx

        self._address = presence.address
        self._client = httpx.AsyncClient(
            base_url=presence.address,
            headers={"authorization": f"Bearer {presence.admin_token}"},
            timeout=httpx.Timeout(10.0, read=None),
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
        import httpx

        try:
            response = await self._client.request(method, path)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise GatewayUnreachable(self._address, reason) from None
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer
        raise _error_of(response.json()["error"], name)


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
