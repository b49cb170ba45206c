"""What a server is asked when it is ready, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest

from gglib.bootstrap import Composition, compose
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.ownership import OwnerKind
from gglib.domain.server_props import ServerProps
from gglib.errors import InvalidValue
from gglib.ports.engine import EngineCapabilities
from gglib.ports.server_client import ServerClient
from gglib.services import server_questions
from gglib.services.routing.router import Lease
from gglib.settings import Settings
from gglib.testing import FakeClock, MockEngine, MockRunner, MockScript, RecordingSink
from gglib.testing.mocked_library import mock_adapters

Ask = Callable[[str, str | None], Awaitable[ServerProps]]


class Asked(ServerClient):
    """Notes whom it is asked about, and answers by a function."""

    def __init__(self, answer: Ask) -> None:
        self.addresses: list[str] = []
        self._answer = answer

    async def props(
        self, base_url: str, api_key: str | None, *, ca_file: str | None = None
    ) -> ServerProps:
        self.addresses.append(base_url)
        return await self._answer(base_url, api_key)


class PlainEngine(MockEngine):
    """An engine whose servers answer requests and nothing else."""

    @property
    def capabilities(self) -> EngineCapabilities:
        return EngineCapabilities(embeddings=True)


class House:
    """A composition over mocks."""

    def __init__(self, parts: Composition, runner: MockRunner, sink: RecordingSink) -> None:
        self.parts = parts
        self.runner = runner
        self.sink = sink


@asynccontextmanager
async def house(
    path: Path,
    *scripts: MockScript,
    client: ServerClient | None = None,
    engine: MockEngine | None = None,
) -> AsyncIterator[House]:
    """Compose for the block; ``client`` in place of the one that knows the scripts."""
    runner, sink = MockRunner(*scripts, clock=FakeClock(auto_advance=True)), RecordingSink()
    given = mock_adapters(runner)
    if client is not None:
        given = attrs.evolve(given, server_client=client)
    if engine is not None:
        given = attrs.evolve(given, engine=engine)
    settings = Settings(data_dir=path)
    async with compose(settings, events=sink, clock=runner.clock, given=given) as parts:
        yield House(parts, runner, sink)


def model(**server: int) -> Model:
    """Return a model with these settings for its servers."""
    defaults = ModelDefaults(server=server)
    return Model(id=1, name="qwen", paths=(Path("/qwen.gguf"),), size_bytes=1, defaults=defaults)


async def nothing_known(base_url: str, api_key: str | None) -> ServerProps:
    return ServerProps()


async def never(base_url: str, api_key: str | None) -> ServerProps:
    await anyio.sleep_forever()
    raise AssertionError("it has slept for ever")


async def broken(base_url: str, api_key: str | None) -> ServerProps:
    raise ValueError("not my day")


@pytest.mark.parametrize("field", ["slots_total", "context_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "4", True])
def test_props_are_counts(field: str, value: object) -> None:
    """Or unknown."""
    with pytest.raises(InvalidValue, match=field):
        ServerProps(**{field: value})  # type: ignore[arg-type]


async def test_started_server_has_what_it_tells(tmp_path: Path) -> None:
    """Also where that is not what was asked for."""
    async with house(tmp_path, MockScript(slots_total=3, context_size=512)) as home:
        server = await (await home.parts.serving(OwnerKind.LIBRARY)).start(model(parallel=8))
        assert (server.slots_total, server.context_size) == (3, 512)


@pytest.mark.parametrize(("asked_for", "expected"), [({"parallel": 8}, 8), ({}, None)])
async def test_slots_that_are_not_told_are_those_asked_for(
    tmp_path: Path, asked_for: dict[str, int], expected: int | None
) -> None:
    """If any are."""
    async with house(tmp_path, client=Asked(nothing_known)) as home:
        server = await (await home.parts.serving(OwnerKind.LIBRARY)).start(model(**asked_for))
        assert (server.slots_total, server.context_size) == (expected, None)


async def test_adopted_server_is_asked_too(tmp_path: Path) -> None:
    """By whom it is adopted: what was known ended with who knew it."""
    async with house(tmp_path, MockScript(slots_total=3, context_size=512)) as home:
        started = await (await home.parts.serving(OwnerKind.GATEWAY)).start(model())
        adopting = await home.parts.serving(OwnerKind.GATEWAY)
        adopted = await adopting.adopt(started.record, model())
        assert adopted is not None
        assert (adopted.slots_total, adopted.context_size) == (3, 512)


async def test_server_whose_engine_is_gone_is_adopted_unasked(tmp_path: Path) -> None:
    """Nothing tells what it would make of the question."""
    client = Asked(nothing_known)
    async with house(tmp_path, client=client) as home:
        serving = await home.parts.serving(OwnerKind.STANDALONE)
        started = await serving.start(model())
        client.addresses.clear()
        record = attrs.evolve(started.record, engine="gone")
        assert await serving.adopt(record, model()) is not None
        assert client.addresses == []


async def test_engine_without_slots_is_not_asked(tmp_path: Path) -> None:
    """A command may make anything of a request that it does not know."""
    client = Asked(nothing_known)
    async with house(tmp_path, client=client, engine=PlainEngine()) as home:
        serving = await home.parts.serving(OwnerKind.GATEWAY)
        server = await serving.start(model())
        assert await serving.adopt(server.record, model()) is not None
        assert client.addresses == []


async def test_client_that_fails_is_told_and_fails_no_start(tmp_path: Path) -> None:
    """By its name."""
    async with house(tmp_path, client=Asked(broken)) as home:
        server = await (await home.parts.serving(OwnerKind.LIBRARY)).start(model(parallel=2))
        assert server.slots_total == 2
        assert home.sink.names == ["server.started", "adapter.failed", "server.ready"]
        failure = home.sink.events[1]
        assert (failure.group, failure.adapter_name) == ("gglib.server_clients", "Asked")  # type: ignore[attr-defined]
        assert failure.reason == "ValueError: not my day"  # type: ignore[attr-defined]


async def test_client_that_hangs_holds_no_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the port promises."""
    assert server_questions._PATIENCE_S == 2
    monkeypatch.setattr(server_questions, "_PATIENCE_S", 0.05)
    async with house(tmp_path, client=Asked(never)) as home:
        with anyio.fail_after(5):
            server = await (await home.parts.serving(OwnerKind.LIBRARY)).start(model())
        assert server.slots_total is None


async def test_start_that_is_called_off_during_the_question_leaves_nothing(tmp_path: Path) -> None:
    """Neither process nor row."""
    asked = anyio.Event()

    async def note(base_url: str, api_key: str | None) -> ServerProps:
        asked.set()
        return await never(base_url, api_key)

    async with house(tmp_path, client=Asked(note)) as home:
        serving = await home.parts.serving(OwnerKind.LIBRARY)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serving.start, model())
            await asked.wait()
            tasks.cancel_scope.cancel()
        assert home.runner.running == []
        assert await (await home.parts.registry()).list() == []


@pytest.mark.parametrize("adopted", [False, True])
async def test_router_grants_as_many_as_there_are_slots(tmp_path: Path, adopted: bool) -> None:
    """The next one stands in line until one is free."""
    async with house(tmp_path, MockScript(slots_total=2)) as home:
        serving = await home.parts.serving(OwnerKind.LIBRARY)
        asked = model()
        async with home.parts.pool(serving) as (router, _):
            if adopted:
                assert await router.take_over(await serving.start(asked))
            else:
                await router.load(asked)
            held: list[Lease | None] = [router.try_lease(asked) for _ in range(3)]
            assert [lease is not None for lease in held] == [True, True, False]
            assert held[0] is not None
            held[0].release()
            assert router.try_lease(asked) is not None
