"""Which requests reach an engine, as what, and which do not."""

from __future__ import annotations

import json

import anyio
import pytest
from support.gateway import open_socket_gateway

from gglib.gateway.relay.limits import Limits
from gglib.gateway.relay.routes import INFERENCE_PATHS

pytestmark = pytest.mark.anyio

M = '{"model":"m"}'
BOUNDARY = "x-boundary"
FORM_TYPE = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
ADMIN = "Authorization: Bearer admin-token\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def form(*fields: tuple[str, bytes], end: str = "--") -> bytes:
    """Return a form."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in fields
    ]
    return b"".join(parts) + f"--{BOUNDARY}{end}\r\n".encode()


@pytest.mark.parametrize("path", sorted(INFERENCE_PATHS))
async def test_every_route_reaches_the_engine_under_its_own_path(path: str) -> None:
    """With its query, and by its model's own name."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"x": 1.0, "model": "m-alias"}', path=f"{path}?a=b")
        answer = await client.read()
        request = gateway.upstream.received[0]
    assert answer.status == 200
    assert request.head.startswith(f"POST {path}?a=b HTTP/1.1".encode())
    assert json.loads(request.body) == {"x": 1.0, "model": "m"}
    assert b'"x":1.0' in request.body.replace(b" ", b"")


async def test_profile_fills_what_the_request_leaves_unsaid() -> None:
    """By its name after the model's or an alias; the next request without it is untouched."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for body in (
            '{"model": "m-alias:cold", "top_p": 0.50}',
            '{"model": "m:cold", "temperature": 1.50}',
            M,
        ):
            await client.post(body)
            assert (await client.read()).status == 200
        bodies = [request.body for request in gateway.upstream.received]
    assert json.loads(bodies[0]) == {"model": "m", "top_p": 0.5, "temperature": 0.0}
    assert b'"top_p":0.50' in bodies[0].replace(b" ", b"")
    assert json.loads(bodies[1]) == {"model": "m", "temperature": 1.5}
    assert bodies[2] == M.encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_another_method_on_an_inference_route_is_refused_in_words(method: str) -> None:
    """It names what the route takes; the connection goes on."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(f"{method} /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.read(head_only=method == "HEAD")
        assert answer.status == 405
        assert answer.header("allow") == "POST"
        if method != "HEAD":
            assert json.loads(answer.body)["error"]["message"] == "/v1/chat/completions takes POST"
        await client.post(M)
        assert (await client.read()).status == 200


# Forms


async def test_form_reaches_the_engine_byte_by_byte() -> None:
    """A file in it may hold anything, even what looks like a boundary's beginning."""
    sound = bytes(range(256)) * 50 + b"\r\n--x-boundar\r\n"
    body = form(("file", sound), ("model", b"m"), ("language", b"de"))
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(body, path="/v1/audio/transcriptions", extra=FORM_TYPE)
        answer = await client.read()
        request = gateway.upstream.received[0]
    assert answer.status == 200
    assert request.body == body
    assert request.header("content-type") == f"multipart/form-data; boundary={BOUNDARY}"


async def test_alias_in_a_form_becomes_the_models_name() -> None:
    """Nothing else changes but the length."""
    fields = [("file", b"\0\1"), ("model", b"m-alias"), ("prompt", b"m-alias")]
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(form(*fields), path="/v1/audio/transcriptions", extra=FORM_TYPE)
        assert (await client.read()).status == 200
        request = gateway.upstream.received[0]
    fields[1] = ("model", b"m")
    assert request.body == form(*fields)
    assert request.header("content-length") == str(len(request.body))


WRONG_FORMS = {
    "nothing": (b"", "it does not begin with its boundary"),
    "json": (M.encode(), "it does not begin with its boundary"),
    "no model": (form(("file", b"x")), "the form has no 'model'"),
    "two models": (form(("model", b"m"), ("model", b"n")), "'model' twice"),
    "empty model": (form(("model", b"")), "'model' is empty"),
    "endless model": (form(("model", b"m" * 2000)), "'model' is too long"),
    "cut short": (form(("model", b"m"))[:-30], "a part is cut short"),
    "no end": (form(("model", b"m"), end=""), "a part is cut short"),
    "odd boundary": (form(("model", b"m"), end="xx"), "followed by something else"),
    "no blank line": (f"--{BOUNDARY}\r\nA: b\r\n--{BOUNDARY}--".encode(), "cut short"),
    "too many parts": (form(*[("a", b"")] * 1001), "more than 1000 parts"),
    "unknown model": (form(("model", b"nobody")), "'nobody'"),
}


@pytest.mark.parametrize(("body", "reason"), WRONG_FORMS.values(), ids=WRONG_FORMS)
async def test_wrong_form_is_refused_in_words(body: bytes, reason: str) -> None:
    """No engine is asked, and the connection goes on."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(body, path="/v1/audio/transcriptions", extra=FORM_TYPE)
        answer = await client.read()
        assert answer.status in (400, 404)
        assert reason in json.loads(answer.body)["error"]["message"]
        assert gateway.upstream.received == []
        await client.post(M)
        assert (await client.read()).status == 200


# A model's server, at any path


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/upstream/m/props?a=b", "/props?a=b"),
        ("/upstream/m", "/"),
        ("/upstream/m/", "/"),
        ("/upstream/m-alias/a%2Fb//c", "/a%2Fb//c"),
        ("/upstream/org/m/v1/x", "/v1/x"),
        ("/upstream/org%2Fm/v1/x", "/v1/x"),
    ],
)
async def test_any_path_of_a_models_server_is_reached(path: str, target: str) -> None:
    """As it is written; a model's name may hold slashes."""
    async with (
        open_socket_gateway(more_models=("org/m",)) as gateway,
        gateway.connect() as client,
    ):
        await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Kept: yes\r\n\r\n")
        assert (await client.read()).status == 200
        request = gateway.upstream.received[0]
    assert request.head.startswith(f"GET {target} HTTP/1.1\r\n".encode())
    assert request.header("content-length") is None
    assert request.header("authorization") == "Bearer engine-key"
    assert request.header("x-kept") == "yes"


async def test_head_of_a_models_server_has_no_body_and_the_connection_goes_on() -> None:
    """Though the engine's head announces one."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send("HEAD /upstream/m/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.read(head_only=True)
        assert (answer.status, answer.header("content-length")) == (200, "5")
        await client.post(M)
        assert (await client.read()).status == 200


async def test_inference_at_a_models_server_needs_no_more_than_elsewhere() -> None:
    """Its body is not read: it need not name a model."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"content": "x"}', path="/upstream/m/tokenize")
        assert (await client.read()).status == 200
        assert gateway.upstream.received[0].body == b'{"content": "x"}'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/upstream/m/slots/0?action=erase"),
        ("DELETE", "/upstream/m/v1/chat/completions"),
        ("POST", "/upstream/m/v1/chat/completions/../../slots/0"),
        ("GET", "/upstream/m/x/../slots"),
        ("GET", "/upstream/m/slots"),
        ("GET", "/upstream/m//slots"),
        ("GET", "/upstream/m/%73lots"),
    ],
)
async def test_what_may_change_a_server_is_for_admins(method: str, path: str) -> None:
    """So is what tells of others' prompts, however it is spelt."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(f"{head}\r\n")
        assert (await client.read()).status == 401
        assert gateway.upstream.received == []
        await client.send(f"{head}{ADMIN}\r\n")
        assert (await client.read()).status == 200


async def test_models_server_that_nobody_knows_is_not_found() -> None:
    """It is the first part of the path that is named."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send("GET /upstream/nobody/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.read()
    assert answer.status == 404
    assert "'nobody'" in json.loads(answer.body)["error"]["message"]


async def test_picture_on_a_strange_page_loads_no_model() -> None:
    """It names no origin, but its browser says where it is from."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            "GET /upstream/m/x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n"
        )
        assert (await client.read()).status == 403
        assert gateway.upstream.received == []


async def test_body_for_a_models_server_is_bounded() -> None:
    """As every body is."""
    async with (
        open_socket_gateway(limits=Limits(max_body_bytes=10)) as gateway,
        gateway.connect() as client,
    ):
        await client.post("x" * 11, path="/upstream/m/tokenize")
        assert (await client.read()).status == 413
        assert gateway.upstream.received == []


# Keys


async def test_key_may_come_as_anthropics_clients_send_it() -> None:
    """A wrong one is as wrong as anywhere, and no engine ever sees it."""
    async with open_socket_gateway(api_keys=("k",)) as gateway, gateway.connect() as client:
        await client.post(M, path="/v1/messages", extra="X-Api-Key: wrong\r\n")
        assert (await client.read()).status == 401
        await client.post(M, path="/v1/messages", extra="X-Api-Key: k\r\n")
        assert (await client.read()).status == 200
        assert gateway.upstream.received[0].header("x-api-key") is None


# Other protocols

UPGRADE = "Connection: keep-alive, Upgrade\r\nUpgrade: loud\r\nSec-WebSocket-Key: k\r\n"


async def test_connection_that_changes_protocols_carries_bytes_both_ways() -> None:
    """Until the engine ends it; the lease is held so long."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        head = f"GET /upstream/m/v1/realtime?a=b HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n"
        await client.send(head + "early")
        answer = await client.read(head_only=True)
        assert answer.status == 101
        assert answer.header("upgrade") == "loud"
        request = gateway.upstream.received[0]
        assert request.head.startswith(b"GET /v1/realtime?a=b HTTP/1.1\r\n")
        assert request.header("upgrade") == "loud"
        assert request.header("connection") == "upgrade"
        assert request.header("sec-websocket-key") == "k"
        assert request.header("authorization") == "Bearer engine-key"
        while client.buffer != b"EARLY":
            assert await client._more()
        assert [view.in_flight for view in gateway.router.residents()] == [1]
        client.buffer = b""
        await client.send("more")
        while client.buffer != b"MORE":
            assert await client._more()
        await client.send("bye")
        assert not await client._more()
        assert [view.in_flight for view in gateway.router.residents()] == [0]


async def test_client_that_leaves_ends_the_engines_side() -> None:
    """At once, and the lease with it."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as client:
            await client.send(f"GET /upstream/m/x HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
            assert (await client.read(head_only=True)).status == 101
        with anyio.fail_after(5):
            await gateway.upstream.gone.wait()
        assert [view.in_flight for view in gateway.router.residents()] == [0]


async def test_engine_that_changes_no_protocol_is_heard() -> None:
    """What it says instead comes through."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(f"GET /upstream/m/refused HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
        answer = await client.read()
        assert (answer.status, answer.body) == (403, b"no")


async def test_strange_page_opens_no_socket() -> None:
    """Browsers ask nobody before they open one: its origin is looked at."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        head = f"GET /upstream/m/x HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}"
        await client.send(f"{head}Origin: https://evil.example\r\n\r\n")
        assert (await client.read()).status == 403
        assert gateway.upstream.received == []


async def test_socket_on_which_nobody_speaks_is_ended() -> None:
    """Else whoever opens one keeps every other model out for as long as he likes."""
    async with (
        open_socket_gateway(limits=Limits(silence_timeout_s=0.3)) as gateway,
        gateway.connect() as client,
    ):
        await client.send(f"GET /upstream/m/x HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
        assert (await client.read(head_only=True)).status == 101
        with anyio.fail_after(5):
            assert not await client._more()
        assert [view.in_flight for view in gateway.router.residents()] == [0]


async def test_force_ends_an_open_socket() -> None:
    """An unload that waits for nothing does not wait for it."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(f"GET /upstream/m/x HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
        assert (await client.read(head_only=True)).status == 101
        (view,) = gateway.router.residents()
        gateway.router.unload(view.model, cut=True)
        with anyio.fail_after(5):
            assert not await client._more()
