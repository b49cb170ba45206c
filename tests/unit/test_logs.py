"""Logs: each event under its name, for people or for programs, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
from support.events import EVENTS, event_sample
from support.gateway import model, running_server

from gglib.domain.events import (
    AdapterFailed,
    CallbackFailed,
    ConfigModelMissed,
    ConfigReloadFailed,
    Event,
    ModelPullFailed,
    OrphanLeft,
    ServerFailed,
    ServerUnhealthy,
    TelemetryFailed,
    WarmUpFailed,
)
from gglib.gateway.doors import Doors
from gglib.gateway.presence import Presence
from gglib.gateway.serve import Gateway
from gglib.logs import LogSink, SilentSink, configure_logs
from gglib.services.routing.router import ResidentView
from gglib.services.routing.scheduler import ResidentPhase
from gglib.settings import GatewaySettings, LoadedSettings, Settings

WARNINGS = (
    AdapterFailed,
    CallbackFailed,
    ConfigModelMissed,
    ConfigReloadFailed,
    ModelPullFailed,
    OrphanLeft,
    ServerFailed,
    ServerUnhealthy,
    TelemetryFailed,
    WarmUpFailed,
)
SECRET = "sk-nobody-may-see"


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Return what standard error has got, with the loggers put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("kind", EVENTS)
def test_event_is_one_json_line_with_its_name_and_fields(
    logged: Callable[[], str], kind: type[Event]
) -> None:
    """A program reads them back as they were; the time is the log's own."""
    configure_logs(json_lines=True)
    event = event_sample(kind)
    LogSink().emit(event)
    (line,) = logged().splitlines()
    entry = json.loads(line)
    assert entry.pop("event") == kind.name
    assert entry.pop("level") == ("warning" if kind in WARNINGS else "info")
    assert entry.pop("timestamp").endswith("Z")
    fields = json.loads(json.dumps(attrs.asdict(event)))
    del fields["at"]
    assert entry == fields


@pytest.mark.parametrize("kind", EVENTS)
def test_event_is_one_line_for_people(logged: Callable[[], str], kind: type[Event]) -> None:
    """Without colours where no terminal shows them."""
    configure_logs()
    LogSink().emit(event_sample(kind))
    (line,) = logged().splitlines()
    assert kind.name in line
    assert "\x1b" not in line
    for field in attrs.fields(kind):
        if field.name != "at":
            assert f"{field.name}=" in line


@pytest.mark.parametrize("json_lines", [True, False])
def test_closed_stream_does_not_harm_who_tells(
    logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch, json_lines: bool
) -> None:
    """A log that nobody can read any more ends no gateway."""
    del logged
    with monkeypatch.context() as patched:
        stream = io.StringIO()
        patched.setattr("sys.stderr", stream)
        configure_logs(json_lines=json_lines)
        stream.close()
        LogSink().emit(event_sample(ServerFailed))


def test_silent_sink_says_nothing(logged: Callable[[], str]) -> None:
    """For commands whose output is their answer."""
    configure_logs()
    SilentSink().emit(event_sample(ServerFailed))
    assert logged() == ""


@pytest.mark.parametrize("json_lines", [True, False])
def test_library_warning_has_the_same_form(logged: Callable[[], str], json_lines: bool) -> None:
    """Records of other packages are ours to show, from warnings on."""
    configure_logs(json_lines=json_lines)
    logging.getLogger("somebody").info("not this")
    logging.getLogger("somebody").warning("the %s is %s", "disk", "full")
    (line,) = logged().splitlines()
    assert "the disk is full" in line
    assert "warning" in line
    if json_lines:
        assert json.loads(line)["event"] == "the disk is full"


@pytest.mark.parametrize("json_lines", [True, False])
def test_bug_is_logged_with_its_trace(logged: Callable[[], str], json_lines: bool) -> None:
    """Who mends it needs the place."""
    configure_logs(json_lines=json_lines)
    try:
        raise ZeroDivisionError("no number")
    except ZeroDivisionError as error:
        logging.getLogger("gglib.gateway").error("internal error", exc_info=error)
    text = logged()
    assert "ZeroDivisionError: no number" in text
    assert "test_logs.py" in text
    if json_lines:
        assert "Traceback" in json.loads(text)["exception"]


def test_debug_shows_what_is_hidden_otherwise(logged: Callable[[], str]) -> None:
    """Of ours and of others."""
    for debug in (False, True):
        configure_logs(debug=debug)
        logging.getLogger("somebody").debug("in depth")
        structlog.get_logger("gglib").debug("own depth")
        text = logged()
        assert ("in depth" in text) is debug
        assert ("own depth" in text) is debug


def secretive(tmp_path: Path) -> dict[str, Any]:
    """Return one of each thing that knows a secret."""
    server = running_server("id", model(1, "m"), 80)
    record = attrs.evolve(server.record, api_key=SECRET)
    gateway = GatewaySettings(api_keys=[SECRET])
    settings = Settings(data_dir=tmp_path, gateway=gateway)
    keyed = attrs.evolve(server, record=record)
    assert keyed.api_key == SECRET
    view = ResidentView(
        model=server.model, phase=ResidentPhase.READY, in_flight=0, queued=0, server=keyed
    )
    nothing: Any = lambda: None  # noqa: E731
    return {
        "gateway settings": gateway,
        "settings": settings,
        "loaded settings": LoadedSettings(settings=settings, sources={}),
        "record": record,
        "running server": keyed,
        "resident": view,
        "presence": Presence(address="a", pid=1, admin_token=SECRET, version="1", started_at=0.0),
        "gateway": Gateway(
            address="a",
            admin_token=SECRET,
            model_count=0,
            stop=nothing,
            cut=nothing,
            reload=nothing,
        ),
        "doors": Doors(admin_token=SECRET, api_keys=(SECRET,)),
    }


def test_secret_is_in_no_representation(tmp_path: Path) -> None:
    """What is printed in a trace, or logged by mistake, gives nothing away."""
    for name, thing in secretive(tmp_path).items():
        assert SECRET not in repr(thing) + str(thing), name
