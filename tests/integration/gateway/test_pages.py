"""Web pages of configured origins may use the gateway; others may not."""

from __future__ import annotations

import pytest
from support.gateway import RawClient, open_socket_gateway

pytestmark = pytest.mark.anyio

M = '{"model":"m"}'
OURS = "https://example.org"
ORIGIN = f"Origin: {OURS}\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


async def ask(client: RawClient, method: str, path: str, extra: str) -> None:
    """Send a request without a body."""
    await client.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/admin/queue"])
async def test_page_that_asks_first_is_told_that_it_may(path: str) -> None:
    """Without a key, which browsers do not send with the question."""
    extra = (
        f"{ORIGIN}Access-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: authorization, x-stainless-os\r\n"
    )
    async with (
        open_socket_gateway(allowed_origins=(OURS,), api_keys=("k",)) as gateway,
        gateway.connect() as client,
    ):
        await ask(client, "OPTIONS", path, extra)
        answer = await client.read()
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") == OURS
        assert answer.header("access-control-allow-headers") == "authorization, x-stainless-os"
        assert "POST" in (answer.header("access-control-allow-methods") or "")
        assert answer.header("vary") == "origin"
        assert gateway.upstream.received == []


async def test_answers_can_be_read_by_the_page_that_asked() -> None:
    """Relayed, our own, and refusals, which tell it what is wrong."""
    async with (
        open_socket_gateway(allowed_origins=(OURS,), api_keys=("k",)) as gateway,
        gateway.connect() as client,
    ):
        key = "Authorization: Bearer k\r\n"
        await client.post(M, extra=ORIGIN + key)
        relayed = await client.read()
        await ask(client, "GET", "/v1/models", ORIGIN + key)
        own = await client.read()
        await ask(client, "GET", "/v1/models", ORIGIN)
        refused = await client.read()
        await client.post('{"model":"nobody"}', extra=ORIGIN + key)
        unknown = await client.read()
    assert [each.status for each in (relayed, own, refused, unknown)] == [200, 200, 401, 404]
    for answer in (relayed, own, refused, unknown):
        assert answer.header("access-control-allow-origin") == OURS
        assert "x-request-id" in (answer.header("access-control-expose-headers") or "")


async def test_strange_page_is_refused_and_can_read_nothing() -> None:
    """Neither with a question first, nor without."""
    extra = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
    async with (
        open_socket_gateway(allowed_origins=(OURS,)) as gateway,
        gateway.connect() as client,
    ):
        await ask(client, "OPTIONS", "/v1/chat/completions", extra)
        asked = await client.read()
        await client.post(M, extra="Origin: https://evil.example\r\n")
        sent = await client.read()
        assert gateway.upstream.received == []
    for answer in (asked, sent):
        assert answer.status == 403
        assert answer.header("access-control-allow-origin") is None


async def test_program_gets_no_headers_for_pages() -> None:
    """It sends no origin."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M)
        answer = await client.read()
    assert answer.header("access-control-allow-origin") is None


async def test_own_answers_carry_the_request_id() -> None:
    """The client's, or one that is made."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await ask(client, "GET", "/health", "X-Request-Id: mine\r\n")
        assert (await client.read()).header("x-request-id") == "mine"
        await ask(client, "GET", "/nothing", "")
        assert (await client.read()).header("x-request-id")
