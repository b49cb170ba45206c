"""The composition root: each part once, when it is asked for, and left in reverse."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.distributions import install

from gglib.bootstrap import SystemClock, compose, make_data_dir
from gglib.domain.config import ServerConfig
from gglib.domain.events import AdapterFailed
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.domain.model import Model
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState
from gglib.errors import (
    AdapterError,
    ConfigurationError,
    DataDirectoryUnusable,
    EngineNotFound,
    ModelFileMissing,
    StartFailed,
)
from gglib.given import GivenAdapters
from gglib.plugins import ENGINES, MODEL_SOURCES, PROCESS_RUNNERS
from gglib.ports.device_inventory import DeviceInventory, DeviceSurvey
from gglib.ports.server_client import ServerProps
from gglib.settings import Settings, load_settings
from gglib.testing import MockRunner, MockServerClient
from gglib.testing.contexts import RecordingSink

STRANGER = textwrap.dedent('''
    """A runner and an engine that note when they are entered and left."""
    from contextlib import asynccontextmanager
    from gglib.ports.process_runner import ProcessRunner
    from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe

    NOTES = []

    class Runner(ProcessRunner):
        def __init__(self, context):
            self.context = context
        async def start(self, config): ...
        async def stop(self, handle): ...
        async def is_running(self, handle): return False
        async def health(self, handle): ...
        async def list_running(self): return []

    class StrangeEngine(Engine):
        def __init__(self, context):
            self.context = context
        name = "strange"
        capabilities = EngineCapabilities()
        async def probe(self):
            return EngineProbe(path=None, version="1", source="package")
        def command(self, config, port):
            return []

    @asynccontextmanager
    async def runner(context):
        NOTES.append(f"enter {context.name}")
        yield Runner(context)
        NOTES.append(f"leave {context.name}")

    @asynccontextmanager
    async def engine(context):
        NOTES.append(f"enter {context.name}")
        yield StrangeEngine(context)
        NOTES.append(f"leave {context.name}")
''')


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install a stranger's runner and engine; return its notes."""
    install(
        monkeypatch,
        tmp_path / "site",
        {"gglib_test_parts": STRANGER},
        {
            PROCESS_RUNNERS: {"strange": "gglib_test_parts:runner"},
            ENGINES: {"strange": "gglib_test_parts:engine"},
        },
    )
    from importlib import import_module

    notes: list[str] = import_module("gglib_test_parts").NOTES
    return notes


def settings_of(tmp_path: Path, text: str = "") -> Settings:
    """Return the settings that a file makes."""
    (tmp_path / "gglib.toml").write_text(text)
    return load_settings(flags={"data_dir": tmp_path}, environ={}).settings


async def test_parts_are_made_once(tmp_path: Path) -> None:
    """Whoever asks gets the same."""
    async with compose(settings_of(tmp_path), events=RecordingSink()) as parts:
        assert await parts.catalog() is await parts.catalog()
        assert await parts.registry() is await parts.registry()
        assert await parts.models() is await parts.models()
        assert await parts.engines() is await parts.engines()
        assert await parts.runners() is await parts.runners()
        assert set(await parts.runners()) == {"local"}
        assert {"llama-server", "embedded"} <= set((await parts.engines()).names)
        assert "command" not in await parts.engines()


async def test_nothing_is_opened_before_it_is_asked_for(tmp_path: Path) -> None:
    """A command that needs no database makes none."""
    async with compose(settings_of(tmp_path), events=RecordingSink()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["gglib.toml"]


async def test_strangers_parts_are_entered_once_and_left_in_reverse(
    tmp_path: Path, stranger: list[str]
) -> None:
    """An installed engine is there by itself; a runner when it is configured."""
    settings = settings_of(
        tmp_path,
        '[runners.strange]\nsize = 3\n[runners.other]\nkind = "strange"\n'
        '[engines.strange]\nheat = "low"\n',
    )
    async with compose(settings, events=RecordingSink()) as parts:
        for _ in range(2):
            runners: Any = await parts.runners()
            engines: Any = await parts.engines()
        assert list(runners) == ["local", "strange", "other"]
        assert runners["strange"].context.settings == {"size": 3}
        assert runners["other"].context.settings == {}
        assert runners["other"].context.data_dir == tmp_path
        assert engines["strange"].context.settings == {"heat": "low"}
        assert runners["strange"].context.engines is engines
        entered = ["enter strange", "enter strange", "enter other"]
        assert stranger == entered
    assert stranger == [*entered, "leave other", "leave strange", "leave strange"]


async def test_section_of_an_unknown_engine_is_a_command(tmp_path: Path) -> None:
    """Its name is the user's own."""
    text = '[engines.vllm]\ncommand = ["vllm", "--port", "{port}"]\n'
    async with compose(settings_of(tmp_path, text), events=RecordingSink()) as parts:
        engine = (await parts.engines())["vllm"]
        assert engine.name == "vllm"
        assert type(engine).__name__ == "CommandEngine"


@pytest.mark.parametrize(
    ("text", "broken", "part"),
    [
        ('[engines.x]\nkind = "warp"\n', "x", "'warp' (gglib.engines): not installed; known: "),
        ("[runners.moon]\n", "moon", "'moon' (gglib.process_runners): not installed; known: "),
        ('[serving]\nrunner = "moon"\n', "moon", "not installed; known: "),
        ('[models.m]\npath = "m"\nrunner = "moon"\n', "moon", "not installed; known: "),
    ],
)
async def test_what_is_configured_and_not_installed_hurts_nobody_else(
    tmp_path: Path, text: str, broken: str, part: str
) -> None:
    """It is told at once, by an event, and to whoever asks for it."""
    sink = RecordingSink()
    async with compose(settings_of(tmp_path, text), events=sink) as parts:
        runners, engines = await parts.runners(), await parts.engines()
        assert "embedded" in engines.names
        found = engines if broken == "x" else runners
        assert broken in found.broken
        assert broken not in found
        with pytest.raises(AdapterError) as caught:
            found[broken]
        assert part in str(caught.value)
    (event,) = sink.events
    assert isinstance(event, AdapterFailed)
    assert (event.adapter_name, part.partition(": ")[2] in event.reason) == (broken, True)


async def test_wrong_section_is_refused_at_once(tmp_path: Path) -> None:
    """It is the user's own, and he is there to correct it."""
    async with compose(settings_of(tmp_path, "[engines.x]\n"), events=RecordingSink()) as parts:
        with pytest.raises(ConfigurationError, match="command"):
            await parts.runners()


BROKEN = textwrap.dedent("""
    from contextlib import asynccontextmanager
    from gglib.errors import ConfigurationError, EngineNotFound

    @asynccontextmanager
    async def raises(context):
        raise RuntimeError("the wrong moon")
        yield

    @asynccontextmanager
    async def quits(context):
        raise SystemExit(1)
        yield

    @asynccontextmanager
    async def elsewhere(context):
        raise EngineNotFound("elsewhere", "it is elsewhere", ("fetch it",))
        yield

    @asynccontextmanager
    async def wants_a_section(context):
        raise ConfigurationError("it needs a section")
        yield

    @asynccontextmanager
    async def wrong(context):
        yield object()
""")
BROKEN_KINDS = ("raises", "quits", "elsewhere", "wants_a_section", "wrong", "nowhere")


@pytest.fixture
def _broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install engines and runners that are broken, each in its own way."""
    entries = {name: f"gglib_test_broken:{name}" for name in BROKEN_KINDS}
    install(
        monkeypatch,
        tmp_path / "site",
        {"gglib_test_broken": BROKEN},
        {ENGINES: entries, PROCESS_RUNNERS: entries},
    )


@pytest.mark.usefixtures("_broken")
async def test_broken_engine_breaks_those_alone_who_ask_for_it(tmp_path: Path) -> None:
    """Nobody has configured it: it is not even told, until it is asked for."""
    sink = RecordingSink()
    async with compose(settings_of(tmp_path), events=sink) as parts:
        engines = await parts.engines()
        assert set(engines.broken) == set(BROKEN_KINDS)
        assert not set(engines.names) & set(BROKEN_KINDS)
        assert set(await parts.runners()) == {"local"}
        for name in ("raises", "quits", "wrong", "nowhere"):
            for _ in range(2):
                with pytest.raises(AdapterError) as caught:
                    engines[name]
                assert (caught.value.group, caught.value.name) == (ENGINES, name)
                assert "gglib-test-stranger 1.0" in str(caught.value)
        with pytest.raises(EngineNotFound, match="fetch it"):
            engines["elsewhere"]
        with pytest.raises(ConfigurationError, match="needs a section"):
            engines["wants_a_section"]
    assert sink.events == []


@pytest.mark.usefixtures("_broken")
@pytest.mark.parametrize(
    "text",
    [
        "[engines.raises]\n",
        '[serving]\nengine = "raises"\n',
        '[models.m]\npath = "m"\nengine = "raises"\n',
    ],
)
async def test_broken_engine_that_is_configured_is_told(tmp_path: Path, text: str) -> None:
    """`gglib serve` says so at its start."""
    sink = RecordingSink()
    async with compose(settings_of(tmp_path, text), events=sink) as parts:
        await parts.serving(OwnerKind.LIBRARY)
    (event,) = sink.events
    assert isinstance(event, AdapterFailed)
    assert (event.name, event.group, event.adapter_name) == ("adapter.failed", ENGINES, "raises")
    assert event.reason == "RuntimeError: the wrong moon (from gglib-test-stranger 1.0)"


@pytest.mark.usefixtures("_broken")
async def test_model_of_a_broken_runner_is_refused_and_others_are_served(tmp_path: Path) -> None:
    """Reconciling touches the working runners alone."""
    settings = settings_of(
        tmp_path,
        '[runners.raises]\n[engines.x]\ncommand = ["false", "{port}"]\n'
        '[models.m]\npath = "m"\nengine = "x"\nrunner = "raises"\n'
        '[models.other]\npath = "other"\nengine = "x"\n',
    )
    (tmp_path / "other").touch()
    async with compose(settings, events=RecordingSink()) as parts:
        assert (await parts.reconcile()).failed == ()
        serving, models = await parts.serving(OwnerKind.LIBRARY), await parts.models()
        with pytest.raises(AdapterError, match="the wrong moon"):
            await serving.start((await models.resolve("m")).model)
        with pytest.raises(StartFailed):
            await serving.start((await models.resolve("other")).model)


async def test_runner_that_nobody_configured_is_told_with_the_known_ones(tmp_path: Path) -> None:
    """A mapping of those that work: looking is no error, asking is."""
    async with compose(settings_of(tmp_path), events=RecordingSink()) as parts:
        runners = await parts.runners()
        assert runners.get("moon") is None
        assert "moon" not in runners
        with pytest.raises(AdapterError, match="no such runner; known: local"):
            runners["moon"]


async def test_default_runner_and_engine_are_those_of_the_settings(
    tmp_path: Path, stranger: list[str]
) -> None:
    """The local runner is not even opened, unless a section or a model wants it."""
    text = '[serving]\nrunner = "strange"\nengine = "strange"\n'
    async with compose(settings_of(tmp_path, text), events=RecordingSink()) as parts:
        assert list(await parts.runners()) == ["strange"]
        serving, runners = await parts.serving(OwnerKind.LIBRARY), await parts.runners()
        runners["strange"].start = never  # type: ignore[method-assign]
        with pytest.raises(Asked, match="strange"):
            await serving.start(model_of(tmp_path))
    for more in ("[runners.local]\n", '[models.m]\npath = "m"\nrunner = "local"\n'):
        async with compose(settings_of(tmp_path, text + more), events=RecordingSink()) as parts:
            assert set(await parts.runners()) == {"strange", "local"}
    assert stranger


class Asked(Exception):
    """The runner was asked to start something; says by which engine."""


async def never(config: ServerConfig) -> ProcessHandle:
    """Start nothing."""
    raise Asked(config.engine)


def model_of(folder: Path) -> Model:
    """Return a model whose file exists."""
    (folder / "m").touch()
    return Model(id=1, name="m", paths=(folder / "m",), size_bytes=0)


async def test_local_runner_is_there_for_the_servers_it_has_on_record(
    tmp_path: Path, stranger: list[str]
) -> None:
    """Else nobody would ever stop what another default has left."""
    del stranger
    async with compose(settings_of(tmp_path), events=RecordingSink()) as parts:
        config = ServerConfig(model_id=1, model_name="m", model_path="m", engine="x")
        owner = Owner(kind=OwnerKind.LIBRARY, pid=1, process_started_at=0.0, node="elsewhere")
        record = ServerRecord(
            server_id=new_server_id(),
            owner=owner,
            config=config,
            engine="x",
            runner="local",
            state=ServerState.READY,
            created_at=1.0,
        )
        await (await parts.registry()).put(record)
    text = '[serving]\nrunner = "strange"\n'
    async with compose(settings_of(tmp_path, text), events=RecordingSink()) as parts:
        assert list(await parts.runners()) == ["strange", "local"]


SOURCES = textwrap.dedent("""
    from contextlib import asynccontextmanager
    from pathlib import Path
    from gglib.errors import ModelFileMissing
    from gglib.domain.model import ModelFacts
    from gglib.ports.model_source import LocatedModel, ModelSource

    NOTES = []

    class Panic(BaseException):
        pass

    class Zoo(ModelSource):
        def __init__(self, context):
            self.context = context
        async def locate(self, reference):
            if reference == "error":
                raise OSError("the cage is open")
            if reference == "panic":
                raise Panic("the cage is open")
            if reference == "none":
                return None
            if reference == "missing":
                raise ModelFileMissing(Path("missing"))
            path = Path(self.context.settings.get("folder", "/zoo"), reference)
            return LocatedModel(
                paths=(path,), size_bytes=1, facts=ModelFacts(), suggested_name=reference
            )

    @asynccontextmanager
    async def zoo(context):
        NOTES.append(f"enter {context.name}")
        yield Zoo(context)
        NOTES.append(f"leave {context.name}")
""")


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install a source ``zoo`` and one that cannot be imported; return the notes of the first."""
    install(
        monkeypatch,
        tmp_path / "site",
        {"gglib_test_zoo": SOURCES},
        {MODEL_SOURCES: {"zoo": "gglib_test_zoo:zoo", "bad": "gglib_test_zoo:nothing"}},
    )
    from importlib import import_module

    notes: list[str] = import_module("gglib_test_zoo").NOTES
    return notes


async def test_reference_names_its_source(tmp_path: Path, zoo: list[str]) -> None:
    """Installed or configured; held while it looks, and not a moment longer."""
    settings = settings_of(tmp_path, '[sources.attic]\nkind = "zoo"\nfolder = "/attic"\n')
    async with compose(settings, events=RecordingSink()) as parts:
        models = await parts.models()
        assert zoo == []
        tiny = await models.add("zoo:tiny")
        assert zoo == ["enter zoo", "leave zoo"]
        old = await models.add("attic:old:one", name="old")
        assert (tiny.path, tiny.name, tiny.origin.kind) == (Path("/zoo/tiny"), "tiny", "zoo")
        assert (old.path, old.origin.kind) == (Path("/attic/old:one"), "attic")
        assert {model.origin.kind for model in await models.list()} == {"zoo", "attic"}
        with pytest.raises(AdapterError, match="'bad'"):
            await models.add("bad:tiny")
        with pytest.raises(ModelFileMissing, match="known sources: attic, bad, zoo"):
            await models.add("zo:tiny")
        assert (await models.remove("tiny")).name == "tiny"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("error", "OSError: the cage is open"),
        ("panic", "Panic: the cage is open"),
        ("none", "TypeError: locate returned a NoneType, which is no LocatedModel"),
    ],
)
@pytest.mark.usefixtures("zoo")
async def test_source_at_fault_is_named(tmp_path: Path, reference: str, reason: str) -> None:
    """By the name it was asked under, and whose it is; what it has to say itself stays."""
    settings = settings_of(tmp_path, '[sources.attic]\nkind = "zoo"\n')
    async with compose(settings, events=RecordingSink()) as parts:
        models = await parts.models()
        with pytest.raises(AdapterError) as caught:
            await models.add(f"attic:{reference}")
        with pytest.raises(ModelFileMissing):
            await models.add("attic:missing")
    assert (caught.value.group, caught.value.name) == (MODEL_SOURCES, "attic")
    assert caught.value.reason == f"{reason} (from gglib-test-stranger 1.0)"


async def test_servers_are_started_in_this_process_name(tmp_path: Path) -> None:
    """What a crash leaves can be told from what lives."""
    async with compose(settings_of(tmp_path), events=RecordingSink()) as parts:
        serving = await parts.serving(OwnerKind.LIBRARY)
        owner = serving._starter._owner
        processes = await parts.process_table()
        assert owner.kind is OwnerKind.LIBRARY
        assert processes.is_alive(owner.node, owner.pid, owner.process_started_at)


def test_data_directory_is_made_for_this_user_only(tmp_path: Path) -> None:
    """With its parents; one that is there stays as it is."""
    path = tmp_path / "a" / "b"
    make_data_dir(path)
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o755)
    make_data_dir(path)
    assert path.stat().st_mode & 0o777 == 0o755


def test_data_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    """A file in its place, or above it."""
    (tmp_path / "file").touch()
    for path, reason in [("file", "not a directory"), ("file/below", "Not a directory")]:
        with pytest.raises(DataDirectoryUnusable) as caught:
            make_data_dir(tmp_path / path)
        assert caught.value.path == tmp_path / path
        assert reason.casefold() in caught.value.reason.casefold()


async def test_clock_is_the_machines() -> None:
    """Unix seconds, and seconds that never go back."""
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.now() > 1_700_000_000


async def test_devices_are_this_machines_or_the_given(tmp_path: Path) -> None:
    """By its entry point, or in its place an instance."""

    class Paper(DeviceInventory):
        async def survey(self) -> DeviceSurvey:
            return DeviceSurvey()

    paper = Paper()
    async with compose(settings_of(tmp_path), events=RecordingSink()) as parts:
        survey = await (await parts.devices()).survey()
        assert survey.cpu is not None
    given = GivenAdapters(devices=paper)
    async with compose(settings_of(tmp_path), events=RecordingSink(), given=given) as parts:
        assert await parts.devices() is paper


async def test_server_client_is_gglibs_or_the_given(tmp_path: Path) -> None:
    """By its entry point, or in its place an instance."""
    mock = MockServerClient(MockRunner())
    async with compose(settings_of(tmp_path), events=RecordingSink()) as parts:
        client = await parts.server_client()
        assert await client.props("http://127.0.0.1:1", None) == ServerProps()
        assert await parts.server_client() is client
    given = GivenAdapters(server_client=mock)
    async with compose(settings_of(tmp_path), events=RecordingSink(), given=given) as parts:
        assert await parts.server_client() is mock
        assert await mock.props("http://127.0.0.1:1", None) == ServerProps()
