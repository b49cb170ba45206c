"""What stands at ``/``, ``/docs`` and ``/openapi.json``; and the methods of each route."""

from __future__ import annotations

import json

import anyio
import pytest
from support.gateway import Answer, RawClient, open_socket_gateway

from gglib import __version__

TOKEN = "Authorization: Bearer admin-token\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


async def send(client: RawClient, line: str, extra: str = "", *, head_only: bool = False) -> Answer:
    """Send a request without a body, and read the answer."""
    await client.send(f"{line} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")
    return await client.read(head_only=head_only)


async def test_root_tells_programs_that_somebody_is_there() -> None:
    """In a line; by HEAD, as Ollama's own command asks, without it."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        answer = await send(client, "GET /", "Accept: */*\r\n")
        head = await send(client, "HEAD /", head_only=True)
    assert (answer.status, answer.body) == (200, b"gglib is running")
    assert (answer.header("content-type") or "").startswith("text/plain")
    assert (head.status, head.header("content-length")) == (200, "16")


async def test_root_shows_browsers_to_the_page() -> None:
    """They say that they prefer HTML."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        answer = await send(
            client, "GET /", "Accept: text/html,application/xml;q=0.9,*/*;q=0.8\r\n"
        )
        assert (answer.status, answer.header("location")) == (302, "/docs")
        assert answer.header("vary") == "accept"
        page = await send(client, "GET /docs")
    assert page.status == 200
    assert page.header("content-type") == "text/html; charset=utf-8"
    assert (page.header("content-security-policy") or "").startswith("default-src 'none';")
    assert page.header("x-content-type-options") == "nosniff"
    assert f"gglib <small>{__version__}</small>".encode() in page.body


async def test_document_tells_whether_this_gateway_wants_a_key() -> None:
    """And is read with one, then; as the page is, and what stands at the root."""
    for keys, optional in (((), True), (("k",), False)):
        async with open_socket_gateway(api_keys=keys) as gateway, gateway.connect() as client:
            if keys:
                for path in ("/openapi.json", "/docs", "/"):
                    assert (await send(client, f"GET {path}")).status == 401
            answer = await send(client, "GET /openapi.json", "Authorization: Bearer k\r\n")
        assert answer.header("content-type") == "application/json"
        told = json.loads(answer.body)
        assert ({} in told["paths"]["/v1/models"]["get"]["security"]) is optional


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("POST /v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("PUT /api/tags", {"GET", "HEAD", "OPTIONS"}),
        ("GET /api/chat", {"POST", "OPTIONS"}),
        ("GET /admin/models/m/load", {"POST", "OPTIONS"}),
        ("GET /v1/chat/completions", {"POST"}),
    ],
)
async def test_wrong_method_is_told_the_right_ones(line: str, allowed: set[str]) -> None:
    """In ``allow``, as HTTP wants it."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        answer = await send(client, line, TOKEN)
    assert answer.status == 405
    assert set((answer.header("allow") or "").split(", ")) == allowed


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics", "/docs", "/admin/events"])
async def test_head_is_answered_as_get_without_its_body(path: str) -> None:
    """Also where the body would have no end; and the connection goes on."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        with anyio.fail_after(5):
            head = await send(client, f"HEAD {path}", TOKEN, head_only=True)
            assert (await send(client, "GET /health")).body == b'{"status":"ok"}'
    assert head.status == 200
    assert head.header("content-type") is not None


async def test_head_where_there_is_no_get_is_405() -> None:
    """It starts nothing."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        answer = await send(client, "HEAD /admin/models/m/load", TOKEN, head_only=True)
        assert gateway.serving.starts == []
    assert answer.status == 405
