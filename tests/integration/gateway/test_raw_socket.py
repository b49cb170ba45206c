"""The raw-socket table: what must hold on the wire before any speed is quoted (SPEC §7)."""

from __future__ import annotations

import gc
import json
import socket
import tracemalloc

import anyio
import pytest
from support.gateway import RawClient, SocketGateway, open_socket_gateway

from gglib.gateway.relay.limits import Limits
from gglib.services.routing.planners import CountPlanner

pytestmark = pytest.mark.anyio

M = '{"model":"m"}'


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def do(script: str, **more: object) -> str:
    """Return a body that asks the engine for a script."""
    return json.dumps({"model": "m", "do": script, **more})


# Passing through


async def test_post_reaches_the_engine_with_its_body_untouched() -> None:
    """Unknown fields, spacing and number forms survive."""
    body = '{ "model": "m",  "x_unknown": 1.0e0, "n": 10000000000000000000000 }'
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(body)
        answer = await client.read()
    assert answer.status == 200
    assert json.loads(answer.body)["body"] == body


async def test_request_headers_travel_but_hop_by_hop_and_secrets_stay() -> None:
    """The engine gets its own key, never the client's, and no framing of the other side."""
    extra = (
        "Authorization: Bearer client-secret\r\nCookie: a=b\r\nX-Api-Key: k\r\n"
        "Accept-Encoding: gzip\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Kept: yes\r\nTE: trailers\r\n"
    )
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M, extra=extra)
        await client.read()
        request = gateway.upstream.received[0]
    assert request.header("authorization") == "Bearer engine-key"
    assert request.header("x-kept") == "yes"
    for gone in ("cookie", "x-api-key", "accept-encoding", "x-hop", "te", "connection"):
        assert request.header(gone) is None
    assert request.header("host") == f"127.0.0.1:{gateway.upstream.port}"


async def test_response_headers_travel_but_hop_by_hop_stay() -> None:
    """An engine decides neither our connection nor who may read across origins."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("hop_by_hop"))
        answer = await client.read()
    assert answer.header("x-kept") == "yes"
    for gone in ("connection", "x-private", "keep-alive", "server", "access-control-allow-origin"):
        assert answer.header(gone) is None


async def test_request_id_is_echoed_and_reaches_the_engine() -> None:
    """One id names a request on both sides."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M, extra="X-Request-Id: abc-1\r\n")
        answer = await client.read()
        assert gateway.upstream.received[0].header("x-request-id") == "abc-1"
    assert answer.header("x-request-id") == "abc-1"


@pytest.mark.parametrize(
    ("session_header", "keeps"), [(b"x-session-id", True), (b"x-other", False), (b"", False)]
)
async def test_session_header_keeps_a_client_on_its_server(
    session_header: bytes, keeps: bool
) -> None:
    """Of two idle servers the first is taken, but for a session that used the second."""
    one = '{"model":"one"}'
    own = "X-Session-Id: mine\r\n"
    async with open_socket_gateway(
        planner=CountPlanner(2), replicas=2, session_header=session_header
    ) as gateway:
        async with gateway.connect() as other, gateway.connect() as client:
            await other.post('{"model":"one","do":"gated_stream"}')
            await gateway.upstream.reach("streaming").wait()
            await client.post(one, extra=own)
            assert (await client.read()).status == 200
            gateway.upstream.gate("go on").set()
            assert (await other.read()).status == 200
            for extra in (own, "", own):
                await client.post(one, extra=extra)
                assert (await client.read()).status == 200
        # Each server has one connection, that was kept.
        first, second, *later = [request.connection for request in gateway.upstream.received]
        assert first != second
        assert later == ([second, first, second] if keeps else [first] * 3)


async def test_missing_request_id_is_made() -> None:
    """Every answer can be named."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M)
        answer = await client.read()
    assert (answer.header("x-request-id") or "").startswith("req_")


async def test_alias_reaches_the_engine_as_the_real_name() -> None:
    """Only the model's value changes."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"a":1.50,"model":"m-alias","b":[1]}')
        answer = await client.read()
    assert json.loads(answer.body)["body"] == '{"a":1.50,"model":"m","b":[1]}'


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_every_relayed_path_reaches_the_engine_under_its_own_name(path: str) -> None:
    """The path, and its query, are the engine's business."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M, path=path + "?a=b")
        assert (await client.read()).status == 200
        assert gateway.upstream.received[0].head.startswith(f"POST {path}?a=b HTTP/1.1".encode())


async def test_stream_arrives_event_by_event_and_ends_clean() -> None:
    """A chunked answer is re-framed, with nothing lost."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("stream"))
        answer = await client.read()
    assert answer.whole
    assert answer.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


async def test_stream_is_not_held_back() -> None:
    """The first event comes while the engine still works on the second."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("gated_stream"))
        assert b"data: 1" not in await client.read_until(b"data: 0\n\n")
        gateway.upstream.gate("go on").set()
        assert (await client.read()).body == b"data: 0\n\ndata: 1\n\n"


@pytest.mark.parametrize("status", ["400 Bad Request", "418 I'm a teapot", "500 Oops", "299 Hm"])
async def test_engine_status_passes_through(status: str) -> None:
    """Also those that nobody knows."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("status", status=status))
        assert (await client.read()).status == int(status[:3])


async def test_no_content_has_no_body_and_no_framing() -> None:
    """A 204 ends with its head, and the connection goes on."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("no_content"))
        answer = await client.read()
        assert answer.status == 204
        assert answer.header("transfer-encoding") is None
        await client.post(M)
        assert (await client.read()).status == 200


async def test_informational_answer_of_the_engine_is_not_the_answer() -> None:
    """A 103 is dropped; what follows it counts."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("early_hints"))
        answer = await client.read()
    assert (answer.status, answer.body) == (200, b"after hints")


async def test_trailers_of_the_engine_end_the_body() -> None:
    """They are dropped with the framing they belong to."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("trailers"))
        answer = await client.read()
    assert answer.whole
    assert answer.body == b"hi"
    assert b"X-Trailer" not in answer.head


async def test_engine_answer_behind_the_answer_reaches_nobody() -> None:
    """Bytes nobody asked for are dropped with their connection."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("two_answers"))
        assert (await client.read()).body == b"one"
        await client.post(do("numbered", number=7))
        assert (await client.read()).body == b"answer 7"


async def test_engine_answer_behind_the_answer_is_not_the_next_ones() -> None:
    """Not even if the next request is here already, and would be sent on the same connection."""
    asked = [do("two_answers"), do("numbered", number=7), do("numbered", number=8)]
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(b"".join(client.request(each) for each in asked))
        bodies = [(await client.read()).body for _ in asked]
    assert bodies == [b"one", b"answer 7", b"answer 8"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
async def test_body_that_engines_may_not_expect_ends_their_connection(method: str) -> None:
    """One that leaves it unread would take it for the next request, and answer that to another."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for body in ("x", "", ""):
            await client.send(
                f"{method} /upstream/m/props HTTP/1.1\r\nHost: localhost\r\n"
                "Authorization: Bearer admin-token\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            )
            assert (await client.read()).status == 200
        assert [each.connection for each in gateway.upstream.received] == [1, 2, 2]


async def test_client_that_asks_and_never_reads_is_answered_in_bounds() -> None:
    """Once it does not keep up, nothing more is answered, or read: it would pile up here."""
    request = b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n"
    count = 400_000
    async with open_socket_gateway(limits=Limits(stall_timeout_s=1.0)) as gateway:
        async with gateway.connect() as client:
            with pytest.raises((anyio.BrokenResourceError, OSError)):
                await client.send(request * count)
        counted = gateway.shared.meter.routes["/v1/completions"].values()
        # What the buffers of the system hold; without a bound it is all that a second is for.
        assert sum(sum(each.statuses.values()) for each in counted) < 60_000


async def test_large_body_arrives_whole() -> None:
    """Ten megabytes in one request."""
    body = json.dumps({"model": "m", "do": "numbered", "number": 1, "image": "x" * 10_000_000})
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(body)
        assert (await client.read()).body == b"answer 1"
        assert len(gateway.upstream.received[0].body) == len(body)


async def test_chunked_request_arrives_with_a_length() -> None:
    """The engine never sees the client's framing."""
    raw = M.encode()
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"5\r\n"
            + raw[:5]
            + b"\r\n%x\r\n" % len(raw[5:])
            + raw[5:]
            + b"\r\n0\r\n\r\n"
        )
        assert (await client.read()).status == 200
        assert gateway.upstream.received[0].header("content-length") == str(len(raw))


async def test_request_sent_byte_by_byte_is_served() -> None:
    """Framing does not depend on how bytes are packed."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for byte in RawClient.request(M):
            await client.send(bytes([byte]))
        assert (await client.read()).status == 200


async def test_requests_of_any_length_on_one_connection_are_each_read_right() -> None:
    """Known heads, other heads, split and joined messages take turns."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for number in range(12):
            body = do("echo", number=number, text="x" * (7**number % 997))
            extra = "X-Other: 1\r\n" if number % 5 == 4 else ""
            request = RawClient.request(body, extra=extra)
            if number % 4 == 3:
                await client.send(request[:-3])
                await anyio.lowlevel.checkpoint()
                await client.send(request[-3:])
            else:
                await client.send(request)
            assert json.loads((await client.read()).body)["body"] == body
        joined = [do("numbered", number=number) for number in range(3)]
        await client.send(b"".join(RawClient.request(body) for body in joined))
        assert [(await client.read()).body for _ in joined] == [b"answer %d" % n for n in range(3)]


async def test_status_of_an_answer_is_its_own() -> None:
    """An answer that is known by its bytes keeps its own status."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for status in ("200 OK", "400 Bad", "200 OK", "200 OK", "503 No", "503 No"):
            await client.post(do("status", status=status))
            assert (await client.read()).status == int(status[:3])


# Order and keep-alive


async def test_pipelined_answers_come_in_the_order_of_requests() -> None:
    """A quick second request waits for a slow first one."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            RawClient.request(do("numbered", number=1, gate="slow"))
            + RawClient.request(do("numbered", number=2))
        )
        await gateway.upstream.reach("slow").wait()
        gateway.upstream.gate("slow").set()
        assert [(await client.read()).body for _ in range(2)] == [b"answer 1", b"answer 2"]


async def test_pipelined_own_route_waits_for_the_relayed_answer_ahead() -> None:
    """GET behind POST: the naive splice answers it first."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            RawClient.request(do("numbered", number=1, gate="slow"))
            + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            + RawClient.request(do("numbered", number=2))
        )
        await gateway.upstream.reach("slow").wait()
        gateway.upstream.gate("slow").set()
        bodies = [(await client.read()).body for _ in range(3)]
    assert bodies == [b"answer 1", b'{"status":"ok"}', b"answer 2"]


async def test_pipelined_refusal_waits_its_turn() -> None:
    """A broken request behind a good one does not overtake its answer."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            RawClient.request(do("numbered", number=1, gate="slow"))
            + b"\x16\x03\x01garbage\r\n\r\n"
        )
        await gateway.upstream.reach("slow").wait()
        gateway.upstream.gate("slow").set()
        assert (await client.read()).body == b"answer 1"
        assert (await client.read()).status == 400
        assert await client.at_end()


async def test_hundred_pipelined_requests_are_answered_in_order() -> None:
    """More than are queued at once: reading pauses, and goes on."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(b"".join(RawClient.request(do("numbered", number=n)) for n in range(100)))
        assert [(await client.read()).body for _ in range(100)] == [
            b"answer %d" % n for n in range(100)
        ]


async def test_thousand_pipelined_refusals_do_not_recurse() -> None:
    """Answers that need no engine are given in a loop."""
    one = b"GET /admin/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(one * 1000)
        assert {(await client.read()).status for _ in range(1000)} == {401}


async def test_connection_is_kept_between_relayed_requests() -> None:
    """On both sides."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for _ in range(3):
            await client.post(M)
            assert (await client.read()).status == 200
        assert {request.connection for request in gateway.upstream.received} == {1}


async def test_connection_close_is_obeyed() -> None:
    """The answer says so, and the connection ends."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M, extra="Connection: close\r\n")
        answer = await client.read()
        assert answer.header("connection") == "close"
        assert await client.at_end()


async def test_http_1_0_gets_its_answer_and_a_close() -> None:
    """A stream to an HTTP/1.0 client is not chunked: it ends with the connection."""
    body = do("stream").encode()
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        answer = await client.read()
    assert answer.header("transfer-encoding") is None
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_engine_that_closes_after_its_answer_is_not_reused() -> None:
    """``Connection: close`` of the engine is its own."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("closing"))
        answer = await client.read()
        assert answer.header("connection") is None
        await client.post(M)
        assert (await client.read()).status == 200


async def test_stale_engine_connection_is_replaced_unseen() -> None:
    """A kept connection that the engine closed costs no client its answer."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for _ in range(5):
            await client.post(do("close_after"))
            assert (await client.read()).body == b"bye"


async def test_expect_continue_is_answered_before_the_body() -> None:
    """A client that waits for it is told to go on."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(M)}\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        assert (await client.read()).status == 100
        await client.send(M)
        assert (await client.read()).status == 200
        assert gateway.upstream.received[0].header("expect") is None


# Refusals


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ("", 400, None, "model"),
        ("not json", 400, None, None),
        ("[]", 400, None, None),
        ("{}", 400, None, "model"),
        ('{"model":5}', 400, None, "model"),
        ('{"model":""}', 400, None, "model"),
        ('{"model":"m","stream":"yes"}', 400, None, "stream"),
        ('{"model":"m","model":"n"}', 400, None, "model"),
        ('{"model":"m","mod\\u0065l":"n"}', 400, None, "model"),
        ('{"model":"nobody"}', 404, "model_not_found", "model"),
        ('{"model":"' + "x" * 100_000 + '"}', 404, "model_not_found", "model"),
    ],
)
async def test_bad_body_is_refused_in_openai_form_and_the_connection_goes_on(
    body: str, status: int, code: str | None, param: str | None
) -> None:
    """Each says what is wrong, and with which field."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(body)
        answer = await client.read()
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"], error["param"]) == (status, code, param)
        assert error["message"]
        await client.post(M)
        assert (await client.read()).status == 200
        assert len(gateway.upstream.received) == 1


async def test_deeply_nested_body_is_an_answer_not_a_crash() -> None:
    """A parser's recursion limit is not ours to die of."""
    body = '{"model":"m","x":' + "[" * 100_000 + "]" * 100_000 + "}"
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(body)
        answer = await client.read()
        assert answer.status == 400
        assert "nested" in json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\nC: d\r\n\r\n\x00",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: gzip, identity\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
)
async def test_malformed_or_smuggled_request_is_refused_and_the_connection_ends(
    request_bytes: bytes,
) -> None:
    """After bytes that two readers could frame in two ways, nothing more is read."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(request_bytes + RawClient.request(M))
        answer = await client.read()
        assert answer.status == 400
        assert json.loads(answer.body)["error"]["message"]
        assert await client.at_end()
        assert gateway.upstream.received == []


async def test_head_beyond_its_limit_is_431() -> None:
    """In one piece."""
    async with open_socket_gateway(limits=Limits(max_header_bytes=2000)) as gateway:
        async with gateway.connect() as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 3000)
            await client.send(b"\r\n\r\n")
            assert (await client.read()).status == 431
            assert await client.at_end()


async def test_endless_head_is_431() -> None:
    """In ever more pieces, never finished."""
    async with open_socket_gateway(limits=Limits(max_header_bytes=2000)) as gateway:
        async with gateway.connect() as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(30):
                await client.send(b"A: " + b"x" * 100 + b"\r\n")
            assert (await client.read()).status == 431


async def test_announced_body_beyond_its_limit_is_413_unread() -> None:
    """The refusal does not wait for a body that nobody will take."""
    async with open_socket_gateway(limits=Limits(max_body_bytes=1000)) as gateway:
        async with gateway.connect() as client:
            await client.send(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
            )
            answer = await client.read()
            assert answer.status == 413
            assert json.loads(answer.body)["error"]["code"] == "body_too_large"
            assert await client.at_end()


async def test_chunked_body_beyond_its_limit_is_413_and_the_answer_arrives() -> None:
    """Although the client is still sending."""
    async with open_socket_gateway(limits=Limits(max_body_bytes=1000)) as gateway:
        async with gateway.connect() as client:
            await client.send(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(20):
                await client.send(b"64\r\n" + b"x" * 100 + b"\r\n")
            assert (await client.read()).status == 413


@pytest.mark.parametrize(
    ("path", "extra", "status", "code"),
    [
        ("/v1/chat/completions", "", 401, "invalid_api_key"),
        ("/v1/chat/completions", "Authorization: Bearer wrong\r\n", 401, "invalid_api_key"),
        ("/v1/chat/completions", "Authorization: Basic right\r\n", 401, "invalid_api_key"),
        ("/v1/chat/completions", "Authorization: Bearer right\r\n", 200, None),
        ("/v1/chat/completions", "Authorization: bearer right\r\n", 200, None),
        ("/v1/chat/completions", "Authorization: Bearer admin-token\r\n", 200, None),
        ("/admin/models/m/load", "Authorization: Bearer right\r\n", 403, "forbidden"),
        ("/admin/models/m/load", "Authorization: Bearer admin-token\r\n", 200, None),
        ("/%61dmin/models/m/load", "Authorization: Bearer right\r\n", 403, "forbidden"),
        ("//admin/models/m/load", "Authorization: Bearer right\r\n", 403, "forbidden"),
        ("/%2fadmin/models/m/load", "Authorization: Bearer right\r\n", 403, "forbidden"),
        ("/admin//models/m/load", "Authorization: Bearer right\r\n", 403, "forbidden"),
        ("//v1//chat/completions", "", 401, "invalid_api_key"),
        ("//v1//chat/completions", "Authorization: Bearer right\r\n", 200, None),
    ],
)
async def test_key_decides(path: str, extra: str, status: int, code: str | None) -> None:
    """One door for every route, however its path is spelled."""
    async with open_socket_gateway(api_keys=("right",)) as gateway, gateway.connect() as client:
        await client.post(M, path=path, extra=extra)
        answer = await client.read()
        assert answer.status == status
        if code is not None:
            assert json.loads(answer.body)["error"]["code"] == code


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8080", None, 200),
        ("127.0.0.1", None, 200),
        ("[::1]:8080", None, 200),
        ("192.168.1.7:8080", None, 200),
        ("evil.example", None, 403),
        ("localhost.evil.example", None, 403),
        ("localhost", "http://localhost:3000", 200),
        ("localhost", "https://evil.example", 403),
        ("localhost", "null", 403),
    ],
)
async def test_host_and_origin_decide(host: str, origin: str | None, status: int) -> None:
    """Against DNS rebinding and pages of strangers."""
    origin_line = f"Origin: {origin}\r\n" if origin else ""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n{origin_line}"
            f"Content-Length: {len(M)}\r\n\r\n{M}"
        )
        assert (await client.read()).status == status


async def test_unknown_path_is_404_in_openai_form() -> None:
    """Also with a method that a known path has not."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.read()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "not_found")
        await client.send("GET /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.read()).status in {404, 405}


async def test_upgrade_is_not_taken_up_and_the_connection_ends() -> None:
    """What follows the request on that connection is not parsed as HTTP."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.send(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n" + RawClient.request(M)
        )
        assert (await client.read()).status == 200
        assert await client.at_end()
        assert gateway.upstream.received == []


async def test_head_request_has_no_body() -> None:
    """A refusal of a HEAD neither."""
    async with open_socket_gateway(api_keys=("k",)) as gateway, gateway.connect() as client:
        await client.send("HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.read(head_only=True)
        assert answer.status == 401
        await client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.read()).status == 200


# Time


async def test_idle_connection_is_closed() -> None:
    """One that has relayed, and one that has done nothing."""
    async with open_socket_gateway(limits=Limits(keep_alive_s=0.1)) as gateway:
        async with gateway.connect() as client:
            await client.post(M)
            assert (await client.read()).status == 200
            assert await client.at_end()
        async with gateway.connect() as client:
            assert await client.at_end()


async def test_slow_head_is_408() -> None:
    """A dripping head is not kept waiting for."""
    async with open_socket_gateway(limits=Limits(header_timeout_s=0.1)) as gateway:
        async with gateway.connect() as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: ")
            assert (await client.read()).status == 408
            assert await client.at_end()


async def test_slow_body_is_408() -> None:
    """A body that stops in the middle neither."""
    async with open_socket_gateway(limits=Limits(stall_timeout_s=0.1)) as gateway:
        async with gateway.connect() as client:
            await client.send(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
            )
            assert (await client.read()).status == 408
            assert await client.at_end()


async def test_waiting_request_is_no_idle_connection() -> None:
    """Keep-alive counts from the end of an answer, not from its request."""
    async with open_socket_gateway(limits=Limits(keep_alive_s=0.05)) as gateway:
        gateway.serving.hold = anyio.Event()
        async with gateway.connect() as client:
            await client.post(M)
            await gateway.serving.start_asked.wait()
            with anyio.move_on_after(0.2):
                await client.read()
                pytest.fail("the connection ended while its request waited")
            gateway.serving.hold.set()
            assert (await client.read()).status == 200


async def test_silent_engine_before_its_first_byte_is_an_error() -> None:
    """A limit on silence, not on time."""
    async with open_socket_gateway(limits=Limits(silence_timeout_s=0.1)) as gateway:
        async with gateway.connect() as client:
            await client.post(do("hold"))
            answer = await client.read()
            assert answer.status == 502
            assert "said nothing" in json.loads(answer.body)["error"]["message"]
            await gateway.upstream.gone.wait()


async def test_silent_engine_in_a_stream_ends_it_with_an_error_event() -> None:
    """Without [DONE]."""
    async with open_socket_gateway(limits=Limits(silence_timeout_s=0.1)) as gateway:
        async with gateway.connect() as client:
            await client.post(do("gated_stream"))
            answer = await client.read()
    assert answer.body.startswith(b"data: 0\n\n")
    assert b'"code":"engine_died"' in answer.body
    assert b"[DONE]" not in answer.body


# Close, on either side


async def test_stream_that_goes_on_is_not_silent() -> None:
    """However its events get through: what counts is that they come."""
    events = [f"data: {number}\n\n" for number in range(300)]
    async with (
        open_socket_gateway(limits=Limits(silence_timeout_s=0.15)) as gateway,
        gateway.connect() as client,
    ):
        began = anyio.current_time()
        await client.post(do("say", kind="text/event-stream", pieces=events))
        answer = await client.read()
        assert anyio.current_time() - began > 0.3
    assert answer.whole
    assert answer.body.decode() == "".join(events)


async def test_request_is_not_kept_while_its_stream_goes_on() -> None:
    """An image is sent once; a stream may take minutes."""
    image, streams = "x" * 2_000_000, 8
    async with open_socket_gateway() as gateway, anyio.create_task_group() as tasks:
        begun = anyio.create_memory_object_stream[None](streams)

        async def stream() -> None:
            async with gateway.connect() as client:
                await client.post(do("gated_stream", image=image))
                await client.read_until(b"data: 0")
                begun[0].send_nowait(None)
                assert (await client.read()).whole

        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(streams):
                tasks.start_soon(stream)
            for _ in range(streams):
                await begun[1].receive()
            for request in gateway.upstream.received:
                request.body = b""
            gc.collect()
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        gateway.upstream.gate("go on").set()
        begun[0].close()
        begun[1].close()
    assert kept_bytes < streams * len(image) / 4


async def test_client_that_leaves_a_stream_frees_the_engine() -> None:
    """The engine sees the hang-up, and the lease ends."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as client:
            await client.post(do("gated_stream"))
            await client.read_until(b"data: 0")
        gateway.upstream.gate("go on").set()
        await _until_idle(gateway)


async def test_client_that_leaves_before_the_answer_frees_the_engine() -> None:
    """Also while the engine has said nothing."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as client:
            await client.post(do("hold"))
            await gateway.upstream.reach("held").wait()
        await gateway.upstream.gone.wait()
        await _until_idle(gateway)


async def test_client_that_leaves_while_queued_is_forgotten() -> None:
    """Its place is free, and nothing is sent for it."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as first:
            body = json.dumps({"model": "one", "do": "hold"})
            await first.post(body)
            await gateway.upstream.reach("held").wait()
            async with gateway.connect() as second:
                await second.post(body)
                await _until(lambda: _queued(gateway) == 1)
            await _until(lambda: _queued(gateway) == 0)
        await gateway.upstream.gone.wait()
        assert len(gateway.upstream.received) == 1


async def test_stalled_reader_is_held_back_and_then_dropped() -> None:
    """The engine is paused, memory stays, and the lease ends."""
    async with open_socket_gateway(limits=Limits(stall_timeout_s=0.2)) as gateway:
        async with gateway.connect() as client:
            await client.post(do("endless_stream"))
            await gateway.upstream.gone.wait()
        await _until_idle(gateway)


async def test_engine_that_closes_before_answering_is_tried_once_more() -> None:
    """The client never knows."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("close_once"))
        answer = await client.read()
    assert (answer.status, answer.body) == (200, b"second time")


async def test_engine_that_closes_twice_before_answering_is_an_error() -> None:
    """A request that kills engines is not sent to a third."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("close_first"))
        answer = await client.read()
        assert answer.status == 502
        assert json.loads(answer.body)["error"]["code"] == "engine_died"
        assert len(gateway.upstream.received) == 2
        await client.post(M)
        assert (await client.read()).status == 200


async def test_engine_that_speaks_no_http_is_an_error() -> None:
    """Whatever listens there."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("garbage"))
        answer = await client.read()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "engine_died")


async def test_engine_that_dies_between_events_ends_the_stream_with_an_error_event() -> None:
    """No [DONE]; nobody takes the piece for the whole."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("die_in_stream"))
        answer = await client.read()
    assert answer.body.rstrip().endswith(b"}}")
    error = json.loads(answer.body.rsplit(b"data: ", 1)[1])["error"]
    assert error["code"] == "engine_died"
    assert b"[DONE]" not in answer.body


async def test_engine_that_dies_behind_many_events_ends_the_stream_with_an_error_event() -> None:
    """All of them arrive before it, and the framing is whole."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.upstream.events = [b"data: %d\n\n" % number for number in range(20)]
        gateway.upstream.events += [b"", b"data: 20\n\n", b"break"]
        await client.post(do("events"))
        await gateway.upstream.reach("streaming").wait()
        await client.read_until(b"data: 19")
        gateway.upstream.gate("go on").set()
        answer = await client.read()
    assert answer.whole
    assert [line for line in answer.body.decode().split("\n\n") if line][:-1] == [
        f"data: {number}" for number in range(21)
    ]
    assert json.loads(answer.body.rsplit(b"data: ", 1)[1])["error"]["code"] == "engine_died"


async def test_engine_that_dies_in_an_event_is_a_broken_transfer() -> None:
    """Half an event cannot be taken back: what is put behind it would be part of it."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("die_in_chunk"))
        answer = await client.read()
    assert not answer.whole
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("script", ["die_in_body", "die_in_plain_chunks"])
async def test_engine_that_dies_in_a_plain_body_is_a_broken_transfer(script: str) -> None:
    """The framing tells that something is missing."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do(script))
        answer = await client.read()
    assert not answer.whole


async def test_body_that_ends_with_its_connection_is_whole_if_the_engine_lives() -> None:
    """An old-fashioned engine's answer is given a frame."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("close_delimited"))
        answer = await client.read()
    assert answer.whole
    assert answer.body == b"until the end"


async def test_body_that_ends_with_its_connection_is_broken_if_the_engine_died() -> None:
    """The same bytes of an engine that is gone are not taken for the whole."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("gated_close_delimited"))
        await gateway.upstream.reach("closing").wait()
        gateway.serving.die()
        gateway.upstream.gate("close").set()
        answer = await client.read()
    assert (answer.status, answer.whole) == (200, False)


async def test_engine_that_dies_before_answering_is_replaced_unseen() -> None:
    """A fresh lease starts a fresh server."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("close_gated"))
        await gateway.upstream.reach("closing").wait()
        gateway.serving.die()
        gateway.upstream.gate("close").set()
        assert (await client.read()).body == b"second time"
        assert gateway.serving.starts == ["m", "m"]


async def test_failed_start_is_told_to_the_client() -> None:
    """With the engine's last line."""
    from gglib.errors import StartFailed

    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.serving.failure = StartFailed("m", 3, ("loading", "out of memory"))
        await client.post(M)
        answer = await client.read()
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (503, "start_failed")
    assert "out of memory" in error["message"]


# Shutdown


async def test_shutdown_lets_a_stream_end() -> None:
    """What is being answered is answered whole."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(do("gated_stream"))
        await client.read_until(b"data: 0")
        gateway.stop()
        gateway.upstream.gate("go on").set()
        answer = await client.read()
        assert answer.whole
        assert answer.body.endswith(b"data: 1\n\n")
        assert await client.at_end()


async def test_shutdown_refuses_who_waits() -> None:
    """They are told, and may come again."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.serving.hold = anyio.Event()
        await client.post(M)
        await gateway.serving.start_asked.wait()
        gateway.stop()
        answer = await client.read()
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert json.loads(answer.body)["error"]["code"] == "shutting_down"


async def test_shutdown_closes_idle_connections_and_accepts_no_more() -> None:
    """The port is free when it is over."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post(M)
        await client.read()
        gateway.stop()
        assert await client.at_end()
        await gateway.server.wait_ended()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", gateway.port)) != 0


async def test_shutdown_cuts_what_outlasts_its_deadline() -> None:
    """The transfer is broken, not ended clean."""
    async with open_socket_gateway(shutdown_timeout_s=1) as gateway, gateway.connect() as client:
        await client.post(do("gated_stream"))
        await client.read_until(b"data: 0")
        gateway.stop()
        answer = await client.read()
        assert not answer.whole


async def test_queue_beyond_its_limit_is_429_with_retry_after() -> None:
    """A true answer at once instead of a wait without end."""
    async with open_socket_gateway(queue_limit=1) as gateway:
        gateway.serving.hold = anyio.Event()
        async with gateway.connect() as first, gateway.connect() as second:
            await first.post(M)
            await gateway.serving.start_asked.wait()
            await second.post(M)
            answer = await second.read()
            assert (answer.status, answer.header("retry-after")) == (429, "1")
            assert json.loads(answer.body)["error"]["code"] == "queue_full"
            gateway.serving.hold.set()
            assert (await first.read()).status == 200


def _queued(gateway: SocketGateway) -> int:
    return sum(view.queued for view in gateway.router.residents())


async def _until_idle(gateway: SocketGateway) -> None:
    await _until(lambda: all(view.in_flight == 0 for view in gateway.router.residents()))


async def _until(condition: object) -> None:
    assert callable(condition)
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()
