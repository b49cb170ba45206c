"""A span for each relayed request: what is in it, and what its engine is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from support.gateway import RawClient, open_socket_gateway

from gglib.errors import StartFailed
from gglib.gateway.telemetry.traced_turns import TracingMeter, traced_turns
from gglib.gateway.telemetry.tracing import Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PARENT = f"traceparent: 00-{TRACE}-{CALLER}-01\r\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 7}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


class Traces:
    """Spans that have ended, and the gateway's classes that make them."""

    def __init__(self, **provider: Any) -> None:
        self._kept = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False, **provider)
        self._provider.add_span_processor(SimpleSpanProcessor(self._kept))
        turns = traced_turns(Tracing(self._provider))
        self.kinds: dict[str, Any] = {"turns": turns, "meter": TracingMeter}

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        """Every span that has ended."""
        return self._kept.get_finished_spans()

    def only(self) -> tuple[ReadableSpan, dict[str, Any]]:
        """Return the one span there is, and its attributes."""
        (span,) = self.ended
        return span, dict(span.attributes or {})

    def close(self) -> None:
        """Be done."""
        self._provider.shutdown()


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    yield made
    made.close()


async def ask(client: RawClient, model: str = "m", *, extra: str = "", **more: Any) -> int:
    """Have a whole answer, and return its status."""
    await client.post(json.dumps({"model": model, **more}), extra=extra)
    return (await client.read()).status


def is_sampled(parent: str) -> bool:
    """Return what a traceparent says of that; other flags are the SDK's affair."""
    return bool(int(parent[-2:], 16) & 1)


async def test_request_is_a_span_with_its_model_tokens_and_times(traces: Traces) -> None:
    """The name that was asked for, and the model that answered; the load that it waited for."""
    answer = json.dumps({"choices": [], "usage": USAGE})
    async with open_socket_gateway(**traces.kinds) as gateway, gateway.connect() as client:
        extra = "x-request-id: mine\r\n"
        assert await ask(client, "m-alias", do="say", pieces=[answer], extra=extra) == 200
    span, told = traces.only()
    assert (span.name, span.kind, span.parent) == ("chat m", SpanKind.SERVER, None)
    assert span.status.status_code is StatusCode.UNSET
    assert told.pop("gglib.first_byte_s") > 0
    assert told.pop("gglib.queue_wait_s") > 0
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "m-alias",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 7,
        "gglib.attempts": 1,
        "gglib.complete": True,
        "gglib.request_id": "mine",
        "gglib.streamed": False,
    }
    (sent,) = span.events
    assert sent.name == "gglib.sent_to_server"
    assert sent.attributes is not None
    assert sent.attributes["gglib.server_id"] == "server-1"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time < sent.timestamp < span.end_time


async def test_clients_trace_goes_on_and_its_engine_is_told_of_our_span(traces: Traces) -> None:
    """One header of each kind, whichever spelling it came in; the next request has its own."""
    async with open_socket_gateway(**traces.kinds) as gateway, gateway.connect() as client:
        extra = PARENT.replace("traceparent", "TraceParent") + "tracestate: a=b\r\n"
        for _ in range(2):
            assert await ask(client, extra=extra) == 200
        assert await ask(client) == 200
        heads = [each.head for each in gateway.upstream.received]
        said = [each.header("traceparent") for each in gateway.upstream.received]
    for head, parent, span in zip(heads, said, traces.ended, strict=True):
        assert span.context is not None
        assert head.lower().count(b"traceparent") == 1
        assert parent is not None
        assert parent[:53] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-"
        assert is_sampled(parent)
    for head, span in zip(heads[:2], traces.ended, strict=False):
        assert span.parent is not None
        assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, CALLER)
        assert head.count(b"tracestate: a=b") == 1
    assert traces.ended[2].parent is None
    assert len({span.context.span_id for span in traces.ended if span.context}) == 3


@pytest.mark.parametrize(
    "parent", ["", "00-zz-yy-01", "00-" + "0" * 32 + f"-{CALLER}-01", "x" * 5000, "\xff\xfe"]
)
async def test_trace_that_makes_no_sense_is_begun_anew(traces: Traces, parent: str) -> None:
    """The request is served as ever, and its engine told something that does."""
    async with open_socket_gateway(**traces.kinds) as gateway, gateway.connect() as client:
        body = b'{"model":"m"}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\ntraceparent: {parent}\r\n"
        await client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
        assert (await client.read()).status == 200
        (received,) = gateway.upstream.received
    span, _ = traces.only()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in (received.header("traceparent") or "")
    assert span.parent is None


async def test_request_that_is_not_sampled_still_tells_its_engine(traces: Traces) -> None:
    """That it is not: engines decide by that."""
    off = Traces(sampler=ParentBased(ALWAYS_OFF))
    async with open_socket_gateway(**off.kinds) as gateway, gateway.connect() as client:
        assert await ask(client) == 200
        assert await ask(client, extra=PARENT) == 200
        first, second = (each.header("traceparent") or "" for each in gateway.upstream.received)
    assert (is_sampled(first), is_sampled(second)) == (False, True)
    assert second[3:35] == TRACE
    assert second[36:52] != CALLER
    assert len(off.ended) == 1
    off.close()
    del traces


async def test_second_attempt_is_told(traces: Traces) -> None:
    """Each attempt is an event of the one span; what failed at last is its error."""
    async with open_socket_gateway(**traces.kinds) as gateway, gateway.connect() as client:
        assert await ask(client, do="close_first") == 502
        assert len({each.header("traceparent") for each in gateway.upstream.received}) == 1
    span, told = traces.only()
    assert [event.name for event in span.events] == [
        *["gglib.sent_to_server"] * 2,
        "exception",
    ]
    assert (told["gglib.attempts"], told["http.response.status_code"]) == (2, 502)
    assert (told["error.type"], span.status.status_code) == ("engine_died", StatusCode.ERROR)


async def test_answer_that_is_broken_off_is_an_error_whatever_its_status(traces: Traces) -> None:
    """It began with 200."""
    async with open_socket_gateway(**traces.kinds) as gateway, gateway.connect() as client:
        assert await ask(client, do="die_in_stream", stream=True) == 200
    span, told = traces.only()
    assert (told["gglib.complete"], told["error.type"]) == (False, "engine_died")
    assert (told["gglib.streamed"], span.status.status_code) == (True, StatusCode.ERROR)


async def test_refused_request_names_its_error(traces: Traces) -> None:
    """A name that nobody knows is the client's fault, and of any length."""
    async with open_socket_gateway(**traces.kinds) as gateway, gateway.connect() as client:
        assert await ask(client, "x" * 5000) == 404
        gateway.serving.failure = StartFailed("n", 1, ())
        assert await ask(client, "n") == 503
        assert await ask(client, 7) == 400  # type: ignore[arg-type]
    unknown, failed, senseless = traces.ended
    found = dict(unknown.attributes or {})
    assert found["gen_ai.request.model"] == "x" * 200
    assert (found["error.type"], unknown.status.status_code) == (
        "model_not_found",
        StatusCode.UNSET,
    )
    assert unknown.name == "POST /v1/chat/completions"
    assert (failed.attributes or {})["error.type"] == "start_failed"
    assert failed.status.status_code is StatusCode.ERROR
    assert "gen_ai.request.model" not in (senseless.attributes or {})


async def test_client_that_leaves_ends_its_span(traces: Traces) -> None:
    """Before its answer, and in the midst of it; nobody is to blame."""
    async with open_socket_gateway(**traces.kinds) as gateway:
        for script, marker in (("hold", None), ("endless_stream", b"data: ")):
            gone = gateway.upstream.disconnects
            async with gateway.connect() as client:
                await client.post(json.dumps({"model": "m", "do": script}))
                if marker is None:
                    await gateway.upstream.reach("held").wait()
                else:
                    await client.read_until(marker)
            with anyio.fail_after(10):
                while gateway.upstream.disconnects == gone:
                    await anyio.sleep(0.001)
    statuses = [(span.attributes or {})["http.response.status_code"] for span in traces.ended]
    assert statuses == [499, 200]
    for span in traces.ended:
        assert (span.attributes or {})["gglib.complete"] is False
        assert span.status.status_code is StatusCode.UNSET


async def test_paths_of_a_models_server_and_tunnels_have_spans(traces: Traces) -> None:
    """By their route, not by what clients make up."""
    token = "Authorization: Bearer admin-token\r\n"
    async with open_socket_gateway(**traces.kinds) as gateway:
        async with gateway.connect() as client:
            await client.post("{}", path="/upstream/m/evil?a=b", extra=token)
            assert (await client.read()).status == 200
        async with gateway.connect() as client:
            upgrade = "Connection: upgrade\r\nUpgrade: loud\r\n"
            await client.send(
                f"GET /upstream/m/ws HTTP/1.1\r\nHost: localhost\r\n{token}{upgrade}\r\nhello"
            )
            await client.read_until(b"HELLO")
            await client.send(b"bye")
            await client.at_end()
        heads = [each.header("traceparent") for each in gateway.upstream.received]
    names = [span.name for span in traces.ended]
    assert names == ["POST /upstream/{model}/{path}", "GET /upstream/{model}/{path}"]
    statuses = [(span.attributes or {})["http.response.status_code"] for span in traces.ended]
    assert statuses == [200, 101]
    assert None not in heads


async def test_without_tracing_the_clients_trace_passes_untouched() -> None:
    """The engine is its child."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert await ask(client, extra=PARENT) == 200
        (received,) = gateway.upstream.received
    assert received.header("traceparent") == f"00-{TRACE}-{CALLER}-01"
