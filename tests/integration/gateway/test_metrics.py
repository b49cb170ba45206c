"""Every metric moves with what it counts: a real gateway, real sockets, engines of the tests'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.commands import Home, stub_config
from support.gateway import RawClient, SocketGateway, open_socket_gateway
from support.metrics import Scrape
from support.real_gateway import RealGateway, open_real_gateway, until

from gglib import __version__
from gglib.domain.events import RequestFinished
from gglib.errors import StartFailed
from gglib.gateway.relay.limits import Limits

TOKEN = "Authorization: Bearer admin-token\r\n"
CHAT = "/v1/chat/completions"
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
TIMINGS = {"prompt_n": 5, "cache_n": 4, "predicted_n": 7, "predicted_per_second": 64.0}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


async def scrape(gateway: SocketGateway) -> Scrape:
    """Return what /metrics tells now, on a connection of its own."""
    async with gateway.connect() as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.read()
    assert (answer.status, answer.whole) == (200, True)
    assert (answer.header("content-type") or "").startswith("text/plain; version=0.0.4")
    return Scrape(answer.body.decode())


async def scrape_real(gateway: RealGateway) -> Scrape:
    """Return what /metrics tells now."""
    return Scrape((await gateway.client.get("/metrics")).text)


async def ask(client: RawClient, model: str = "m", **more: Any) -> int:
    """Have a whole answer, and return its status."""
    await client.post(json.dumps({"model": model, **more}))
    return (await client.read()).status


# Requests


async def test_requests_are_counted_by_route_model_and_status() -> None:
    """An alias counts as its model; a query is no part of a route."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for name in ("m", "m-alias", "m"):
            assert await ask(client, name) == 200
        await client.post('{"model":"m"}', path=CHAT + "?a=1")
        assert (await client.read()).status == 200
        await client.post('{"model":"m"}', path="/v1/embeddings")
        assert (await client.read()).status == 200
        assert await ask(client, do="status", status="418 I am a teapot") == 418
        found = await scrape(gateway)
    assert found("gglib_requests_total", route=CHAT, model="m", status="200") == 4
    assert found("gglib_requests_total", route=CHAT, model="m", status="418") == 1
    assert found("gglib_requests_total", route="/v1/embeddings", model="m", status="200") == 1
    assert found("gglib_request_seconds_count", route=CHAT, model="m") == 5
    assert found("gglib_request_seconds_bucket", route=CHAT, model="m", le="+Inf") == 5
    assert (found("gglib_request_seconds_sum", route=CHAT, model="m") or 0) > 0


async def test_all_paths_of_a_models_server_are_one_route() -> None:
    """Refused or not."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post("{}", path="/upstream/m-alias/evil?a=b", extra=TOKEN)
        assert (await client.read()).status == 200
        await client.send("GET /upstream/m/slots HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.read()).status == 401
        found = await scrape(gateway)
    route = "/upstream/{model}/{path}"
    assert found("gglib_requests_total", route=route, model="m", status="200") == 1
    assert found("gglib_requests_total", route=route, model="unknown", status="401") == 1
    assert "evil" not in found.text


async def test_stream_that_was_promised_while_it_waited_is_counted_as_200() -> None:
    """Its failure came as an event: the access log says that it is not complete."""
    limits = Limits(keepalive_comment_s=0.01)
    finished: list[RequestFinished] = []
    async with open_socket_gateway(limits=limits) as gateway, gateway.connect() as client:
        gateway.shared.meter._log = finished.append
        gateway.serving.hold = anyio.Event()
        gateway.serving.failure = StartFailed("m", 1, ())
        await client.post('{"model":"m","stream":true}')
        await client.read_until(b":")
        gateway.serving.hold.set()
        assert b"start_failed" in (await client.read()).body
        found = await scrape(gateway)
    assert found("gglib_requests_total", route=CHAT, model="m", status="200") == 1
    assert (finished[0].status, finished[0].complete) == (200, False)


async def test_labels_are_ours_whatever_clients_send() -> None:
    """Model names, paths and methods that they make up make no series."""
    async with open_socket_gateway(more_models=("org/four:7b",)) as gateway:
        async with gateway.connect() as client:
            for number in range(3):
                assert await ask(client, f"evil-{number}") == 404
                for target in (f"/evil-{number}", f"/v1/models/evil-{number}", "/v1/models"):
                    await client.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    await client.read()
            assert await ask(client, "org/four:7b") == 200
            await client.post("nonsense")
            assert (await client.read()).status == 400
        found = await scrape(gateway)
    assert "evil" not in found.text
    assert found.labels("model") == {"unknown", "org/four:7b"}
    assert found.labels("route") == {CHAT, "other", "/v1/models", "/v1/models/{name}"}
    assert found("gglib_requests_total", route=CHAT, model="unknown", status="404") == 3
    assert found("gglib_requests_total", route=CHAT, model="unknown", status="400") == 1
    assert found("gglib_requests_total", route="other", model="unknown", status="404") == 3
    name = "/v1/models/{name}"
    assert found("gglib_requests_total", route=name, model="unknown", status="404") == 3
    assert found("gglib_requests_total", route="/v1/models", model="unknown", status="200") == 3


async def test_metrics_need_a_key_where_keys_are_set_and_refusals_are_counted() -> None:
    """Any key will do, an administrator's right is not needed."""
    async with open_socket_gateway(api_keys=("k",)) as gateway, gateway.connect() as client:
        for path in ("/metrics", CHAT, "/nowhere"):
            await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.read()).status == 401
        await client.send(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n\r\n"
        )
        found = Scrape((await client.read()).body.decode())
    for route in ("/metrics", CHAT, "other"):
        assert found("gglib_requests_total", route=route, model="unknown", status="401") == 1


async def test_body_that_is_too_large_is_counted_with_no_time() -> None:
    """It was never a whole request."""
    async with open_socket_gateway(limits=Limits(max_body_bytes=10)) as gateway:
        async with gateway.connect() as client:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head.replace("Host: a", "Host: localhost") + "20\r\n" + "x" * 32)
            assert (await client.read()).status == 413
        found = await scrape(gateway)
    assert found("gglib_requests_total", route=CHAT, model="unknown", status="413") == 1
    assert found("gglib_request_seconds_count", route=CHAT, model="unknown") == 0


async def test_client_that_leaves_before_its_answer_is_counted_as_499() -> None:
    """One that leaves in the midst of it, with the status that it was sent."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as client:
            await client.post('{"model":"m","do":"hold"}')
            await gateway.upstream.reach("held").wait()
        await gateway.upstream.gone.wait()
        async with gateway.connect() as client:
            await client.post('{"model":"m","do":"endless_stream"}')
            await client.read_until(b"data: ")
        found = await scrape(gateway)
        with anyio.fail_after(5):
            while found("gglib_requests_total", route=CHAT, model="m", status="200") is None:
                found = await scrape(gateway)
    assert found("gglib_requests_total", route=CHAT, model="m", status="499") == 1
    assert found("gglib_requests_total", route=CHAT, model="m", status="200") == 1


async def test_request_that_engines_fail_twice_is_counted_once() -> None:
    """With the status that its client was told."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert await ask(client, do="close_first") == 502
        found = await scrape(gateway)
    assert found("gglib_requests_total", route=CHAT, model="m", status="502") == 1
    assert found("gglib_queue_wait_seconds_count", model="m") == 1


# Waiting


async def test_waiting_is_seen_while_it_lasts_and_measured_after() -> None:
    """Who waits, who is in flight, and how long it took to a server and to the first byte."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as first, gateway.connect() as second:
            await first.post('{"model":"one","do":"gated_stream"}')
            await gateway.upstream.reach("streaming").wait()
            await first.read_until(b"data: 0")
            await second.post('{"model":"one"}')
            while not gateway.router.queue():
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.02)
            found = await scrape(gateway)
            assert found("gglib_queue_depth", model="one") == 1
            assert found("gglib_in_flight", model="one") == 1
            assert found("gglib_residents", model="one", state="ready") == 1
            # Both are told as soon as they are known, not at an answer's end.
            assert found("gglib_first_byte_seconds_count", model="one") == 1
            assert found("gglib_queue_wait_seconds_count", model="one") == 1
            gateway.upstream.gate("go on").set()
            assert (await first.read()).whole
            assert (await second.read()).status == 200
        found = await scrape(gateway)
    assert found("gglib_queue_depth", model="one") == 0
    assert found("gglib_in_flight", model="one") == 0
    assert found("gglib_queue_wait_seconds_count", model="one") == 2
    assert (found("gglib_queue_wait_seconds_sum", model="one") or 0) > 0.02
    assert found("gglib_first_byte_seconds_count", model="one") == 2
    assert (found("gglib_first_byte_seconds_sum", model="one") or 0) > 0.02


# Tokens and bytes


async def test_tokens_are_read_from_what_passes() -> None:
    """From a whole answer, one in pieces, a stream cut anywhere; and each only once."""
    whole = json.dumps({"choices": [], "usage": USAGE, "timings": TIMINGS})
    events = "".join(
        f"data: {json.dumps({'n': number, 'usage': None})}\n\n" for number in range(500)
    )
    end = f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n"
    stream = {"do": "say", "kind": "text/event-stream"}
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert await ask(client, do="say", pieces=[whole]) == 200
        assert await ask(client, do="say", pieces=[whole]) == 200
        found = await scrape(gateway)
        assert found("gglib_prompt_tokens_total", model="m") == 18
        assert found("gglib_completion_tokens_total", model="m") == 14
        assert found("gglib_tokens_per_second_sum", model="m") == 128
        assert found("gglib_tokens_per_second_bucket", model="m", le="50") == 0
        assert found("gglib_tokens_per_second_bucket", model="m", le="100") == 2
        assert (
            await ask(client, "n", do="say", pieces=[whole[:40], whole[40:60], whole[60:]]) == 200
        )
        await ask(
            client,
            "n",
            **stream,
            pieces=[events, *(end[at : at + 9] for at in range(0, len(end), 9))],
        )
        await ask(client, "n", **stream, pieces=[events + end])
        await ask(client, "n", do="say", kind="text/plain", pieces=[whole])
        found = await scrape(gateway)
    assert found("gglib_prompt_tokens_total", model="n") == 27
    assert found("gglib_completion_tokens_total", model="n") == 21


async def test_bytes_are_those_of_the_sockets() -> None:
    """On the client's side and the engine's, heads and framing included."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"model":"m","do":"stream"}')
        got = await client.read_until(b"0\r\n\r\n")
        (request,) = gateway.upstream.received
        found = await scrape(gateway)
    sent = len(request.head) + len(b"\r\n\r\n") + len(request.body)
    assert found("gglib_relay_bytes_total", direction="to_client") == len(got)
    assert found("gglib_relay_bytes_total", direction="to_engine") == sent


# Models


async def test_pool_and_swaps_are_counted() -> None:
    """One place, two models, and one that does not start."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        for name in ("m", "m", "n"):
            assert await ask(client, name) == 200
        gateway.serving.failure = StartFailed("one", 1, ())
        assert await ask(client, "one") == 503
        found = await scrape(gateway)
    assert found("gglib_pool_hits_total") == 1
    assert found("gglib_pool_misses_total") == 3
    assert found("gglib_swaps_total") == 2
    assert found("gglib_evictions_total", reason="swap") == 2
    assert found("gglib_load_failures_total", model="one") == 1


async def test_loads_memory_and_restarts_are_those_of_real_servers(home: Home) -> None:
    """A server of a real process, killed by a request, and started again for the next."""
    stated = "memory_bytes = 123456789\n"
    home.configure(stub_config("a", ballast_bytes=10_000_000) + stated, "a")
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")

        async def is_observed() -> bool:
            seen = (await scrape_real(gateway))("gglib_memory_observed_bytes", model="a")
            return (seen or 0) > 10_000_000

        await until(is_observed)
        found = await scrape_real(gateway)
        assert found("gglib_build_info", version=__version__) == 1
        assert found("gglib_loads_total", model="a") == 1
        assert found("gglib_load_seconds_sum", model="a") == sum(gateway.loads_s("a"))
        assert found("gglib_residents", model="a", state="ready") == 1
        assert found("gglib_memory_needed_bytes", model="a", device="cpu") == 123_456_789
        pool = (await gateway.client.get("/admin/pool")).json()
        for device, size in pool["budgets_bytes"].items():
            assert found("gglib_memory_budget_bytes", device=device) == size
        assert (found("process_resident_memory_bytes") or 0) > 0
        assert (await gateway.chat("a", exit_status=3)).status_code == 502
        await gateway.ask("a")
        found = await scrape_real(gateway)
    restarts = found("gglib_server_restarts_total", model="a", reason="died")
    assert restarts == len(gateway.starts) - 1
    assert found("gglib_evictions_total", reason="died") == restarts
    assert found("gglib_loads_total", model="a") == len(gateway.loads_s("a"))


async def test_page_lists_every_metric_and_none_besides() -> None:
    """With the labels that it has."""
    rows = {
        cells[0].strip("` "): cells[1]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `gglib_") and (cells := line.strip("|").split("|"))
    }
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert await ask(client, do="say", pieces=[json.dumps({"usage": USAGE})]) == 200
        found = await scrape(gateway)
    assert set(rows) == found.names
    for line in found.text.splitlines():
        name, brace, labels = line.partition("{")
        for ending in ("_bucket", "_count", "_sum"):
            name = name.removesuffix(ending)
        if brace and name in rows:
            told = set(rows[name].replace("`", "").replace(",", " ").split())
            names = {pair.partition("=")[0] for pair in labels.partition("}")[0].split(",")}
            assert names - {"le"} == told, name


# The access log


async def test_access_log_tells_each_request_when_it_is_asked_for(home: Home) -> None:
    """Relayed, answered here, refused; and nothing of what was said or of any key."""
    home.configure(stub_config("a", extra='[gateway]\naccess_log = true\napi_keys = ["k"]\n'), "a")
    async with open_real_gateway(home) as gateway:
        await gateway.client.post(
            CHAT, json={"model": "a", "user": "secret"}, headers={"x-request-id": "mine"}
        )
        await gateway.ask("a", stream=True)
        await gateway.client.get("/running", headers={"x-request-id": "own"})
        await gateway.client.get("/running", headers={"authorization": "Bearer wrong"})
        finished = gateway.of_kind(RequestFinished)
    relayed, streamed, own, refused = finished
    assert (relayed.route, relayed.model_name, relayed.status) == (CHAT, "a", 200)
    assert (relayed.request_id, relayed.client) == ("mine", "127.0.0.1")
    assert (relayed.streamed, relayed.complete) == (False, True)
    assert (relayed.prompt_tokens, relayed.completion_tokens) == (1, 3)
    assert 0 < relayed.queue_wait_s < relayed.first_byte_s <= relayed.duration_s
    assert (streamed.streamed, streamed.queue_wait_s) == (True, 0.0)
    assert (streamed.prompt_tokens, streamed.completion_tokens) == (None, None)
    assert (own.route, own.model_name, own.status) == ("/running", "unknown", 200)
    assert (own.request_id, own.first_byte_s) == ("own", None)
    assert (refused.route, refused.status) == ("/running", 401)
    assert "secret" not in str(finished) and "Bearer" not in str(finished)


async def test_access_log_tells_what_was_cut(home: Home) -> None:
    """An engine that dies within a stream, a client that leaves."""
    extra = "[gateway]\naccess_log = true\n"
    home.configure(stub_config("a", extra=extra), "a")
    async with open_real_gateway(home) as gateway:
        body = {"model": "a", "stream": True, "pause_after": 1}
        async with gateway.client.stream("POST", CHAT, json=body) as answer:
            await anext(answer.aiter_bytes())

        async def is_told() -> bool:
            return bool(gateway.of_kind(RequestFinished))

        await until(is_told)
        (cut,) = gateway.of_kind(RequestFinished)
    assert (cut.status, cut.complete, cut.streamed) == (200, False, True)


async def test_there_is_no_access_log_unless_it_is_asked_for(home: Home) -> None:
    """A line costs more than a relayed request."""
    home.configure(stub_config("a"), "a")
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")
        assert gateway.of_kind(RequestFinished) == []
