"""Every adapter can be replaced by hand: by an instance, or by a factory."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import attrs
import pytest

import gglib
from gglib.bootstrap import SystemClock, compose
from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.model import Model, ModelDefaults, ModelFacts
from gglib.domain.ownership import OwnerKind, ServerRecord
from gglib.errors import AdapterError, InvalidValue, ModelNotFound, NotRunning
from gglib.gateway.serve import open_gateway
from gglib.given import GivenAdapters
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessIdentity, ProcessTable
from gglib.ports.server_registry import ServerRegistry
from gglib.settings import GatewaySettings, ServingSettings, Settings
from gglib.testing import MockRunner, MockServerClient
from gglib.testing.contexts import RecordingSink
from gglib_adapters.runners.local import open_local_runner


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's settings counts here."""
    for name in os.environ:
        if name.startswith("GGLIB_"):
            monkeypatch.delenv(name)


class PaperCatalog(ModelCatalog):
    """Models in a list."""

    def __init__(self) -> None:
        self.models: dict[int, Model] = {}
        self.changes = 0

    async def add(self, model: Model) -> Model:
        self.changes += 1
        kept = attrs.evolve(model, id=self.changes)
        self.models[kept.id] = kept
        return kept

    async def get(self, model_id: int) -> Model:
        if model_id not in self.models:
            raise ModelNotFound(str(model_id))
        return self.models[model_id]

    async def list(self) -> list[Model]:
        return sorted(self.models.values(), key=lambda model: model.name)

    async def update(self, model: Model) -> None:
        self.models[model.id] = model
        self.changes += 1

    async def remove(self, model_id: int) -> None:
        del self.models[model_id]
        self.changes += 1

    async def id_for_name(self, name: str) -> int:
        return 1000 + len(name)

    async def revision(self) -> int:
        return self.changes


class PaperRegistry(ServerRegistry):
    """Records in a dictionary; remembers the runners it has seen."""

    def __init__(self) -> None:
        self.rows: dict[str, ServerRecord] = {}
        self.runners: set[str] = set()

    async def put(self, record: ServerRecord) -> None:
        self.rows[record.server_id] = record
        self.runners.add(record.runner)

    async def get(self, server_id: str) -> ServerRecord | None:
        return self.rows.get(server_id)

    async def list(self) -> list[ServerRecord]:
        return list(self.rows.values())

    async def remove(self, server_id: str) -> None:
        self.rows.pop(server_id, None)


class PaperRunner(ProcessRunner):
    """Servers on paper, ready at once."""

    def __init__(self) -> None:
        self.running: dict[str, ProcessHandle] = {}
        self.started: list[ServerConfig] = []

    async def start(self, config: ServerConfig) -> ProcessHandle:
        self.started.append(config)
        handle = ProcessHandle(
            model_id=config.model_id,
            model_name=config.model_name,
            pid=None,
            port=9,
            started_at=1.0,
            server_id=str(config.server_id),
            runner="paper",
            node="paper",
            base_url="http://127.0.0.1:9",
        )
        self.running[handle.server_id] = handle
        return handle

    async def stop(self, handle: ProcessHandle) -> None:
        if self.running.pop(handle.server_id, None) is None:
            raise NotRunning(handle.model_name)

    async def is_running(self, handle: ProcessHandle) -> bool:
        return handle.server_id in self.running

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        if handle.server_id not in self.running:
            raise NotRunning(handle.model_name)
        return ServerHealth(healthy=True)

    async def list_running(self) -> list[ProcessHandle]:
        return list(self.running.values())


class OtherRunner(PaperRunner):
    """Another kind."""


class PaperEngine(Engine):
    """An engine without a program."""

    def __init__(self, name: str = "paper") -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> EngineCapabilities:
        return EngineCapabilities()

    async def probe(self) -> EngineProbe:
        return EngineProbe(path=None, version="1", source="package")

    def command(self, config: ServerConfig, port: int) -> list[str]:
        del config
        return ["paper", str(port)]


class PaperSource(ModelSource):
    """A source that has whatever it is asked for."""

    async def locate(self, reference: str) -> LocatedModel:
        return LocatedModel(
            paths=(Path("/paper", reference),),
            size_bytes=1,
            facts=ModelFacts(),
            suggested_name=reference.strip("/").replace("/", "-"),
        )


class PaperTable(ProcessTable):
    """One process: this one."""

    def identity(self) -> ProcessIdentity:
        return ProcessIdentity("paper", 1, 1.0)

    def is_alive(self, node: str, pid: int, process_started_at: float) -> bool:
        return (node, pid, process_started_at) == ("paper", 1, 1.0)

    def holder_of_port(self, port: int) -> str | None:
        del port
        return None


class LateClock(SystemClock):
    """A clock of another century."""

    def now(self) -> float:
        return 5e9


def everything() -> dict[str, Any]:
    """Return one of each, on paper."""
    return {
        "catalog": PaperCatalog(),
        "registry": PaperRegistry(),
        "source": PaperSource(),
        "process_table": PaperTable(),
        "server_client": MockServerClient(MockRunner()),
        "runner": PaperRunner(),
        "engine": PaperEngine(),
    }


async def test_library_of_given_adapters_leaves_nothing_on_disk(tmp_path: Path) -> None:
    """But the data directory; every part of it is the one that was given."""
    given, home = everything(), tmp_path / "home"
    async with gglib.open(home, clock=LateClock(), **given) as lib:
        model = await lib.models.add("tiny")
        assert (model.path, model.added_at) == (Path("/paper/tiny"), 5e9)
        async with lib.serve("tiny") as server:
            assert lib.servers == (server,)
            assert (server.engine, server.record.runner) == ("paper", "PaperRunner")
            assert server.record.owner.node == "paper"
            assert list(given["registry"].rows) == [server.server_id]
            assert list(given["runner"].running) == [server.server_id]
        async with lib.lease("tiny") as lease:
            assert lease.server.engine == "paper"
        assert [config.engine for config in given["runner"].started] == ["paper", "paper"]
    assert given["runner"].running == {}
    assert lib.servers == ()
    assert given["catalog"].models[model.id] == model
    assert list(tmp_path.rglob("*")) == [home]


def factory_of(made: Any, notes: list[str], name: str = "factory") -> Any:
    """Return a factory such as an entry point names, which notes what is done with it."""

    @asynccontextmanager
    async def factory(context: AdapterContext) -> AsyncIterator[Any]:
        notes.append(f"enter {context.name}")
        try:
            yield made
        finally:
            notes.append(f"leave {context.name}")

    factory.__name__ = name
    return factory


async def test_factory_is_entered_and_left(tmp_path: Path) -> None:
    """By the library, in reverse; its name is the factory's, an engine's its own."""
    notes: list[str] = []
    given = {name: factory_of(each, notes, f"my_{name}") for name, each in everything().items()}
    async with gglib.open(tmp_path, **given) as lib:
        await lib.models.add("tiny")
        async with lib.serve("tiny") as server:
            assert (server.engine, server.record.runner) == ("paper", "my_runner")
        assert {f"enter my_{name}" for name in given} == set(notes)
    entered, left = notes[: len(given)], notes[len(given) :]
    assert [note.replace("leave", "enter") for note in reversed(left)] == entered


async def test_adapters_given_by_name_are_chosen_by_models(tmp_path: Path) -> None:
    """Beside the default and the installed ones; a section of theirs is theirs."""
    (tmp_path / "gglib.toml").write_text("[sources.zoo]\nkeeper = 'me'\n")
    runner, notes, contexts = OtherRunner(), [], []

    @asynccontextmanager
    async def zoo(context: AdapterContext) -> AsyncIterator[ModelSource]:
        contexts.append(context)
        yield PaperSource()

    async with gglib.open(
        tmp_path,
        **everything(),
        runners={"other": runner, "third": factory_of(PaperRunner(), notes)},
        engines={"second": PaperEngine("second")},
        sources={"zoo": zoo, "attic": PaperSource()},
    ) as lib:
        assert notes == ["enter third"]
        model = await lib.models.add(
            "zoo:lion", defaults=ModelDefaults(runner="other", engine="second")
        )
        (context,) = contexts
        assert (context.name, context.settings) == ("zoo", {"keeper": "me"})
        assert (model.origin.kind, model.path) == ("zoo", Path("/paper/lion"))
        assert (await lib.models.add("attic:cat")).origin.kind == "attic"
        async with lib.serve(model) as server:
            assert (server.engine, server.record.runner) == ("second", "other")
            assert len(runner.running) == 1
        async with lib.serve("cat") as server:
            assert (server.engine, server.record.runner) == ("paper", "PaperRunner")


async def test_given_default_is_stronger_than_the_settings(tmp_path: Path) -> None:
    """What the program says now wins over the file; the installed stay, by name."""
    serving = ServingSettings(runner="moon", engine="warp")
    settings, sink = Settings(data_dir=tmp_path, serving=serving), RecordingSink()
    given = GivenAdapters(runner=PaperRunner(), engine=PaperEngine("embedded"))
    async with compose(settings, events=sink, given=given) as parts:
        assert list(await parts.runners()) == ["PaperRunner"]
        engines = await parts.engines()
        assert engines["embedded"] is given.engine
        assert "llama-server" in engines
        model = Model(id=1, name="m", paths=["/m"], size_bytes=0)
        server = await (await parts.serving(OwnerKind.LIBRARY)).start(model)
        assert server.engine == "embedded"
    assert "adapter.failed" not in sink.names


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_gateway_takes_given_adapters(tmp_path: Path) -> None:
    """As the library does."""
    settings = Settings(data_dir=tmp_path, gateway=GatewaySettings(port=0))
    given = everything()
    await given["catalog"].add(Model(id=0, name="m", paths=["/m"], size_bytes=0))
    sink = RecordingSink()
    async with open_gateway(
        settings, events=sink, clock=LateClock(), given=GivenAdapters(**given)
    ) as gateway:
        assert gateway.model_count == 1
    assert {event.at for event in sink.events} == {5e9}
    assert not (tmp_path / "gglib.db").exists()


class Mistaken:
    """No adapter of any port, and no factory."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runner": Mistaken()}, "runner is a Mistaken; expected an instance of ProcessRunner, or"),
        ({"runner": PaperRunner}, "runner is the class PaperRunner; expected an instance"),
        ({"catalog": "sqlite"}, "catalog is a str; expected an instance of ModelCatalog"),
        ({"registry": 5}, "registry is a int; expected an instance of ServerRegistry"),
        ({"source": Path("/m")}, "; expected an instance of ModelSource"),
        ({"process_table": {}}, "process_table is a dict"),
        ({"server_client": {}}, "server_client is a dict"),
        ({"engine": PaperRunner()}, "engine is a PaperRunner; expected an instance of Engine"),
        ({"runners": [PaperRunner()]}, "runners is a list; expected a mapping of names"),
        ({"runners": {"x": None}}, r"runners\['x'\] is a NoneType; expected"),
        ({"engines": {1: PaperEngine()}}, "engines has the name 1; expected a text"),
        ({"sources": {"zoo": PaperEngine()}}, r"sources\['zoo'\] is a PaperEngine"),
        ({"clock": 5.0}, "clock is a float; expected an instance of Clock$"),
        ({"events": print}, "events is a builtin_function_or_method; expected an instance"),
    ],
)
async def test_wrong_adapter_is_refused_before_anything_is_opened(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    """By its parameter's name, with what was given and what is expected."""
    with pytest.raises(TypeError, match=message):
        async with gglib.open(tmp_path / "home", **arguments):
            pass
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"engines": {"fast": PaperEngine("slow")}},
        {"sources": {"file": PaperSource()}},
        {"sources": {"c": PaperSource()}},
        {"runner": PaperRunner(), "runners": {"PaperRunner": PaperRunner()}},
    ],
)
async def test_name_that_cannot_be_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """What is on record must lead back to what was meant."""
    with pytest.raises(InvalidValue):
        async with gglib.open(tmp_path, **arguments):
            pass


async def test_installed_factory_given_by_hand_has_its_installed_name(tmp_path: Path) -> None:
    """Its servers are found again by a command that was given nothing."""
    given = {**everything(), "runner": open_local_runner}
    settings = Settings(data_dir=tmp_path)
    async with compose(settings, events=RecordingSink(), given=GivenAdapters(**given)) as parts:
        assert parts.default_runner == "local"
        assert list(await parts.runners()) == ["local"]

    @wraps(open_local_runner)
    def wrapped(context: AdapterContext) -> Any:
        return open_local_runner(context)

    assert GivenAdapters(runner=wrapped).runner_name == "open_local_runner"


@pytest.mark.parametrize(
    "factory", [lambda context: open_local_runner(context), partial(open_local_runner)]
)
def test_runner_of_a_factory_without_a_name_is_refused(factory: Any) -> None:
    """Its servers would be on record under a name that means nothing; by name it is taken."""
    with pytest.raises(InvalidValue, match=r'give it by one: runners=\{"NAME": …\}'):
        GivenAdapters(runner=factory)
    assert list(GivenAdapters(runners={"mine": factory}).all_runners) == ["mine"]


async def test_given_coroutine_function_is_told_from_a_factory(tmp_path: Path) -> None:
    """With what it lacks, and no warning that nobody awaited it."""

    async def undecorated(context: AdapterContext) -> Any:
        return PaperRunner()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AdapterError, match="is a coroutine: decorate the factory with"):
            async with gglib.open(tmp_path, runner=undecorated):  # type: ignore[arg-type]
                pass
        gc.collect()


@pytest.mark.parametrize("name", ["runner", "engine", "catalog"])
async def test_given_factory_that_fails_is_told_at_once(tmp_path: Path, name: str) -> None:
    """It was asked for here and now; nothing would work as meant without it."""

    def moody(context: AdapterContext) -> Any:
        raise RuntimeError("not today")

    with pytest.raises(AdapterError, match="not today") as caught:
        async with gglib.open(tmp_path, **{name: moody}):
            pass
    assert caught.value.name == "moody"
    with pytest.raises(AdapterError, match="provides a Mistaken, which is no "):
        async with gglib.open(tmp_path, **{name: factory_of(Mistaken(), [])}):
            pass
