"""Broken plug-ins: told by the doctor, survived by every command."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import textwrap
from pathlib import Path

import pytest
from support.commands import Home, stub_config
from support.distributions import install

from gglib.plugins import ENGINES, MODEL_SOURCES, PROCESS_RUNNERS

STRANGER = textwrap.dedent("""
    from contextlib import asynccontextmanager
    from pathlib import Path
    from gglib.domain.model import ModelFacts
    from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
    from gglib.ports.model_source import LocatedModel, ModelSource
    from gglib.ports.process_runner import ProcessRunner

    class Zoo(ModelSource):
        async def locate(self, reference):
            return LocatedModel(
                paths=(Path("/zoo", reference),),
                size_bytes=1,
                facts=ModelFacts(),
                suggested_name=reference,
            )

    class Moody(Engine):
        name = "moody"
        capabilities = EngineCapabilities()
        async def probe(self):
            raise RuntimeError("not today")
        def command(self, config, port):
            return []

    class Sulking(ProcessRunner):
        async def start(self, config): ...
        async def stop(self, handle): ...
        async def is_running(self, handle):
            raise RuntimeError("do not ask")
        async def health(self, handle): ...
        async def list_running(self): return []

    def made(kind):
        @asynccontextmanager
        async def factory(context):
            yield kind()
        return factory

    zoo, moody, sulking = made(Zoo), made(Moody), made(Sulking)

    @asynccontextmanager
    async def broken(context):
        raise RuntimeError("the wrong moon")
        yield

    @asynccontextmanager
    async def quitting(context):
        raise SystemExit(5)
        yield
""")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A data directory, and a distribution with good and broken plug-ins for every command."""
    site = tmp_path / "site"
    install(
        monkeypatch,
        site,
        {"gglib_test_cli": STRANGER, "gglib_test_quitter": "raise SystemExit(7)"},
        {
            ENGINES: {
                "broken": "gglib_test_cli:broken",
                "quitting": "gglib_test_cli:quitting",
                "quitter": "gglib_test_quitter:anything",
                "moody": "gglib_test_cli:moody",
            },
            PROCESS_RUNNERS: {
                "lost": "gglib_no_such_module:anything",
                "sick": "gglib_test_cli:broken",
                "sulking": "gglib_test_cli:sulking",
            },
            MODEL_SOURCES: {"zoo": "gglib_test_cli:zoo", "attic": "gglib_test_cli:broken"},
        },
    )
    home = Home.make(tmp_path, PYTHONPATH=os.pathsep.join([str(site)]))
    home.configure(stub_config("a"), "a")
    return home


def findings(home: Home) -> dict[str, tuple[str, str, str | None]]:
    """Return what the doctor says of plug-ins: state, detail and fix, by name."""
    done = home.run("doctor", "--json")
    return {
        found["detail"].split()[0]: (found["state"], found["detail"], found["fix"])
        for found in json.loads(done.stdout)
        if found["subject"] == "plug-in"
    }


def test_doctor_names_every_plugin_and_what_is_broken(home: Home) -> None:
    """Whose it is, its version, the reason and what to do; whatever its code raises."""
    found = findings(home)
    assert found["zoo"] == ("ok", "zoo (gglib.model_sources) of gglib-test-stranger 1.0", None)
    assert found["sick"][0] == "ok", "nobody has configured it: it is not entered"
    fix = "pip install --upgrade gglib-test-stranger, or pip uninstall gglib-test-stranger"
    for name, reason in [
        ("broken", "RuntimeError: the wrong moon"),
        ("quitting", "SystemExit: 5"),
        ("quitter", "SystemExit: 7"),
        ("lost", "ModuleNotFoundError: No module named 'gglib_no_such_module'"),
    ]:
        state, detail, remedy = found[name]
        assert (state, remedy) == ("broken", fix)
        assert f"{reason} (from gglib-test-stranger 1.0)" in detail
    done = home.run("doctor")
    assert done.returncode == 1
    assert "!!  plug-in         lost (gglib.process_runners): ModuleNotFoundError" in done.stdout
    told = done.stdout.partition("moody: RuntimeError: not today (from gglib-test-stranger 1.0)")[2]
    assert told.startswith(f"\n{'':20}-> {fix}\n")
    for subject in ("models", "engine", "gateway", "servers"):
        assert f" {subject}" in done.stdout


def test_doctor_opens_what_is_configured(home: Home) -> None:
    """Also under another name, also what is not installed, also what is the default."""
    home.configure(
        '[serving]\nrunner = "moon"\nengine = "warp"\n[runners.mine]\nkind = "sick"\n'
        "[runners.sulking]\n[sources.attic]\n"
    )
    found = findings(home)
    assert "not installed; known: " in found["moon"][1]
    assert (found["moon"][0], found["moon"][2]) == (
        "broken",
        "install what provides it, or name another in the configuration",
    )
    assert found["mine"][0] == found["attic"][0] == "broken"
    assert "the wrong moon" in found["mine"][1]
    assert "'warp', the default of [serving], is not configured" in home.run("doctor").stdout


def test_doctor_names_both_holders_of_a_name(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told, with how to be rid of it."""
    install(
        monkeypatch,
        tmp_path / "other",
        {},
        {MODEL_SOURCES: {"zoo": "gglib_test_cli:other"}},
        distribution="gglib-test-rival",
    )
    done = home.run("doctor")
    reason = "registered by gglib-test-rival 1.0 and gglib-test-stranger 1.0; uninstall one"
    assert done.stdout.count(reason) == 2
    assert "pip uninstall gglib-test-rival" in done.stdout


def test_doctor_names_who_wants_a_name_of_gglibs_own(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command works beside it, with gglib's own."""
    install(
        monkeypatch,
        tmp_path / "other",
        {},
        {PROCESS_RUNNERS: {"local": "gglib_test_cli:sulking"}},
        distribution="gglib-test-squatter",
    )
    path = os.pathsep.join([home.environment["PYTHONPATH"], str(tmp_path / "other")])
    home = Home(home.path, {**home.environment, "PYTHONPATH": path})
    fix = "pip install --upgrade gglib-test-squatter, or pip uninstall gglib-test-squatter"
    detail = "local (gglib.process_runners): its name is taken by gglib's own"
    assert findings(home)["local"] == ("broken", detail, fix)
    assert home.json("start", "a")["model"] == "a"
    assert home.run("stop", "--all").stdout == "stopped a\n"


def test_doctor_says_nothing_of_plugins_where_there_are_none(tmp_path: Path) -> None:
    """gglib's own adapters are none."""
    assert findings(Home.make(tmp_path)) == {}


def test_commands_work_beside_broken_plugins(home: Home) -> None:
    """Those that are asked for are told; nothing else is concerned."""
    assert home.json("model", "list")[0]["name"] == "a"
    assert home.json("start", "a")["model"] == "a"
    assert [row["model"] for row in home.json("ps")] == ["a"]
    assert home.run("stop", "a").returncode == 0
    home.configure(stub_config("a") + '[models.b]\npath = "a.gguf"\nengine = "broken"\n')
    done = home.run("start", "b")
    assert (done.returncode, "plug-in 'broken' (gglib.engines): RuntimeError" in done.stderr) == (
        1,
        True,
    )


def test_default_runner_that_is_not_there_is_told_when_a_model_is_served(home: Home) -> None:
    """With the known ones; looking works on."""
    home.configure('[serving]\nrunner = "moon"\n' + stub_config("a"), "a")
    assert home.json("ps") == []
    done = home.run("start", "a")
    assert done.returncode == 1
    assert "'moon'" in done.stderr
    assert "known: " in done.stderr
    assert "local" in done.stderr


def test_gateway_tells_at_its_start_what_is_configured_and_broken(
    home: Home, tmp_path: Path
) -> None:
    """In its log; and serves what it can."""
    home.configure(stub_config("a") + "[runners.lost]\n[engines.broken]\n", "a")
    with home.serve() as served:
        assert served.chat("a").status_code == 200
    lines = (tmp_path / "serve.log").read_text().splitlines()
    told = [line for line in lines if "adapter.failed" in line]
    assert len(told) == 2
    assert any('"adapter_name": "lost"' in line and '"warning"' in line for line in told)
    assert lines.index(told[0]) < next(
        number for number, line in enumerate(lines) if "gateway.started" in line
    )


def test_stop_of_all_goes_on_after_one_that_cannot_be_stopped(home: Home) -> None:
    """The server of a runner that is gone is told; the others are stopped."""
    home.configure(stub_config("a", "b"), "a", "b")
    home.json("start", "a")
    home.json("start", "b")
    with contextlib.closing(sqlite3.connect(home.path / "gglib.db")) as database:
        database.execute("UPDATE servers SET runner = 'moon' WHERE config LIKE '%a.gguf%'")
        database.commit()
    done = home.run("stop", "--all")
    assert (done.returncode, "'moon'" in done.stderr) == (1, True)
    assert [(row["model"], row["state"]) for row in home.json("ps")] == [("a", "unknown")]
    (told,) = [
        each
        for each in json.loads(home.run("doctor", "--json").stdout)
        if each["subject"] == "servers"
    ]
    assert told == {
        "subject": "servers",
        "state": "warning",
        "detail": "a server of a is on record with the runner 'moon', which is not here",
        "fix": "give or configure that runner, then `gglib stop a`",
    }
    with contextlib.closing(sqlite3.connect(home.path / "gglib.db")) as database:
        database.execute("UPDATE servers SET runner = 'local'")
        database.commit()
    assert home.run("stop", "--all").stdout == "stopped a\n"


def test_model_is_added_from_a_source(home: Home) -> None:
    """By its name; a broken one is told, an unknown one with those there are."""
    added = home.json("model", "add", "zoo:lion")
    assert (added["paths"], added["source"]) == (["/zoo/lion"], "zoo")
    broken = home.run("model", "add", "attic:cat")
    assert (broken.returncode, "the wrong moon" in broken.stderr) == (1, True)
    unknown = home.run("model", "add", "zo:lion")
    assert (unknown.returncode, "known sources: attic, zoo" in unknown.stderr) == (3, True)
