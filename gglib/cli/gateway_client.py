"""The command line's way to a live gateway."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from gglib.errors import GatewayUnreachable, GglibError, InvalidRequest, NotRunning

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
            timeout=httpx.Timeout(10.0, read=None),
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


def _error_of(error: dict[str, Any], name: str) -> GglibError:
    if error.get("code") == "not_running":
        return NotRunning(name)
    return InvalidRequest(error["message"], error.get("param"), error.get("code"))
