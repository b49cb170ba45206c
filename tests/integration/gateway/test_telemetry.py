"""Traces and metrics, from a gateway's settings to a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.collector import attributes_of, open_collector
from support.commands import Home, stub_config
from support.metrics import Scrape
from support.real_gateway import open_real_gateway, until

from gglib import __version__
from gglib.domain.events import Event, TelemetryFailed
from gglib.errors import ConfigurationError
from gglib.gateway.telemetry import sending
from gglib.gateway.telemetry.signals import Signals, signals_of
from gglib.settings import TelemetrySettings


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    return Home.make(tmp_path)


def send_to(home: Home, address: str) -> None:
    """Configure a model, and where telemetry goes."""
    extra = f'[telemetry]\notlp_endpoint = "{address}"\n'
    home.configure(stub_config("a", extra=extra), "a")


async def test_spans_and_metrics_reach_the_collector(home: Home) -> None:
    """All of them, at the latest when the gateway ends; metrics say what /metrics says."""
    with open_collector() as collector:
        send_to(home, collector.address + "/")
        async with open_real_gateway(home) as gateway:
            for _ in range(3):
                await gateway.ask("a")
            scraped = Scrape((await gateway.client.get("/metrics")).text)
    assert set(collector.paths) == {"/v1/traces", "/v1/metrics"}
    assert [span.name for span in collector.spans] == ["chat a"] * 3
    resource = attributes_of(collector.traces[0].resource_spans[0].resource)
    assert (resource["service.name"], resource["service.version"]) == ("gglib", __version__)
    assert attributes_of(collector.metrics[-1].resource_metrics[0].resource) == resource

    found = collector.latest_metrics
    # By then the servers are ending, and what has never happened has no series.
    ending = {"gglib_residents", "gglib_memory_needed_bytes", "gglib_memory_observed_bytes"}
    ending.add("gglib_evictions")
    never = {"gglib_load_failures", "gglib_server_restarts"}
    assert set(found) | ending | never == {name.removesuffix("_total") for name in scraped.names}
    route = "/v1/chat/completions"
    (requests,) = [
        point
        for point in found["gglib_requests"].sum.data_points
        if attributes_of(point)["route"] == route
    ]
    assert found["gglib_requests"].sum.is_monotonic
    assert attributes_of(requests) == {"model": "a", "route": route, "status": "200"}
    assert requests.as_int == scraped("gglib_requests_total", route=route, model="a", status="200")
    (loads,) = found["gglib_load_seconds"].histogram.data_points
    assert (loads.count, sum(loads.bucket_counts), attributes_of(loads)) == (1, 1, {"model": "a"})
    assert len(loads.bucket_counts) == len(loads.explicit_bounds) + 1
    assert loads.sum == scraped("gglib_load_seconds_sum", model="a")
    assert not loads.HasField("min")
    in_flight = found["gglib_in_flight"].gauge.data_points
    assert {attributes_of(point)["model"]: point.as_int for point in in_flight}["a"] == 0


async def test_metrics_are_sent_every_interval(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at the end; the times say since when they are counted."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with open_collector() as collector:
        send_to(home, collector.address)
        async with open_real_gateway(home):

            async def has_two() -> bool:
                return len(collector.metrics) >= 2

            await until(has_two)
    times = [
        {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}[
            "gglib_swaps"
        ].sum.data_points[0]
        for request in collector.metrics[:2]
    ]
    assert times[0].start_time_unix_nano == times[1].start_time_unix_nano
    assert times[0].time_unix_nano < times[1].time_unix_nano


async def test_standard_variables_hold(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, headers, what is not wanted; and the endpoint, where the settings name none."""
    with open_collector() as collector:
        home.configure(stub_config("a"), "a")
        home = Home(
            home.path, {**home.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
        )
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=t1")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        async with open_real_gateway(home) as gateway:
            await gateway.ask("a")
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["x-tenant"] == "t1"
    resource = attributes_of(collector.traces[0].resource_spans[0].resource)
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("mine", "test")


def troubles(events: list[Event]) -> list[str]:
    """Return what was told of telemetry that failed."""
    return [event.reason for event in events if isinstance(event, TelemetryFailed)]


@pytest.mark.parametrize("hangs", [True, False])
async def test_dead_collector_harms_nobody(
    home: Home, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Requests are answered, the gateway ends in time, and what is lost is a few events."""
    monkeypatch.setattr(sending, "_LAST_WORDS_S", 0.5)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with open_collector(hangs=True) as collector, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        send_to(home, collector.address if hangs else dead)
        async with open_real_gateway(home) as gateway:
            for _ in range(20):
                assert await gateway.ask("a") < 5

            async def is_told() -> bool:
                return bool(troubles(gateway.sink.events))

            await until(is_told)
            began = time.monotonic()
        assert time.monotonic() - began < 4
    told = troubles(gateway.sink.events)
    assert len(set(told)) == len(told) <= 6


async def test_nothing_of_opentelemetry_is_there_unless_it_is_wanted(home: Home) -> None:
    """No import, no thread."""
    program = (
        "import sys, anyio\n"
        "from gglib.gateway.serve import open_gateway\n"
        "from gglib.logs import SilentSink\n"
        "from gglib.settings import GatewaySettings, Settings\n"
        "from pathlib import Path\n"
        "async def main():\n"
        f"    settings = Settings(data_dir=Path({str(home.path)!r}), "
        "gateway=GatewaySettings(port=0))\n"
        "    async with open_gateway(settings, events=SilentSink()):\n"
        "        wanted = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "        print([name for name in sys.modules if name.startswith(wanted)])\n"
        "anyio.run(main)\n"
    )
    out = await anyio.run_process([sys.executable, "-c", program], env=dict(home.environment))
    assert out.stdout == b"[]\n"


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""

    def find(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("gglib.settings.telemetry.find_spec", find)


@pytest.mark.usefixtures("without_extra")
async def test_missing_extra_is_named_with_the_way_to_get_it(home: Home) -> None:
    """By ``serve``, and by ``config check`` with its line."""
    send_to(home, "http://127.0.0.1:4318")
    with pytest.raises(ConfigurationError, match=r"pip install 'gglib\[otel\]'"):
        async with open_real_gateway(home):
            raise AssertionError("it has started")


@pytest.mark.usefixtures("without_extra")
def test_check_finds_the_missing_extra(home: Home) -> None:
    """With the line that asks for it."""
    send_to(home, "http://127.0.0.1:4318")
    done = home.run("config", "check")
    assert done.returncode == 2
    line = (home.path / "gglib.toml").read_text().splitlines().index("[telemetry]") + 2
    assert f"gglib.toml:{line}: [telemetry] otlp_endpoint needs OpenTelemetry" in done.stderr


@pytest.mark.usefixtures("without_extra")
async def test_variable_for_all_programs_asks_for_nothing_without_the_extra(home: Home) -> None:
    """It is said to the machine, not to gglib: nobody's gateway fails for it."""
    home.configure(stub_config("a"), "a")
    home = Home(
        home.path, {**home.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    )
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")
    shown = {each["key"]: each["value"] for each in home.json("config", "show")}
    assert shown["telemetry.otlp_endpoint"] == ""


ENDPOINT = TelemetrySettings(otlp_endpoint="http://c:4318")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"traces": "http://c:4318/v1/traces", "metrics": "http://c:4318/v1/metrics"}),
        ({"OTEL_SDK_DISABLED": "True"}, {}),
        ({"OTEL_TRACES_EXPORTER": "none"}, {"metrics": "http://c:4318/v1/metrics"}),
        (
            {"OTEL_METRICS_EXPORTER": "console, otlp", "OTEL_TRACES_EXPORTER": "console"},
            {"metrics": "http://c:4318/v1/metrics"},
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x", "OTEL_METRICS_EXPORTER": "none"},
            {"traces": "http://t/x"},
        ),
        (
            {"OTEL_SDK_DISABLED": "false", "OTEL_METRIC_EXPORT_INTERVAL": "1500"},
            {
                "traces": "http://c:4318/v1/traces",
                "metrics": "http://c:4318/v1/metrics",
                "metric_interval_s": 1.5,
            },
        ),
    ],
)
def test_variables_choose_what_is_sent(environ: dict[str, str], expected: dict[str, Any]) -> None:
    """As OpenTelemetry's specification has them."""
    assert signals_of(ENDPOINT, environ) == Signals(**expected)
    assert not signals_of(TelemetrySettings(), environ)
