"""Adapters by entry points: real distributions on the path, good ones and broken ones."""

from __future__ import annotations

import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.distributions import install

from gglib.domain.events import AdapterFailed
from gglib.errors import AdapterError, EngineNotFound
from gglib.plugins import (
    ENGINES,
    MODEL_CATALOGS,
    MODEL_SOURCES,
    PROCESS_RUNNERS,
    PROCESS_TABLES,
    SERVER_REGISTRIES,
    adapter_names,
    distribution_of,
    is_fault,
    open_adapter,
    survey_plugins,
)
from gglib.ports.engine import Engine
from gglib.ports.model_source import ModelSource
from gglib.testing.contexts import RecordingSink, make_context

STRANGER = textwrap.dedent('''
    """A stranger's adapters."""
    import contextlib
    from contextlib import asynccontextmanager
    import anyio
    from gglib.errors import EngineNotFound
    from gglib.ports.model_source import ModelSource

    class Source(ModelSource):
        def __init__(self, context):
            self.context = context
            self.left = False
        async def locate(self, reference):
            raise NotImplementedError

    @asynccontextmanager
    async def good(context):
        source = Source(context)
        yield source
        source.left = True

    @asynccontextmanager
    async def broken(context):
        raise RuntimeError("the wrong moon")
        yield

    @asynccontextmanager
    async def refusing(context):
        raise EngineNotFound("x", "it is elsewhere")
        yield

    def no_context_manager(context):
        return Source(context)

    @asynccontextmanager
    async def wrong(context):
        yield object()

    @asynccontextmanager
    async def quitting(context):
        raise SystemExit("I am done")
        yield

    @asynccontextmanager
    async def interrupted(context):
        raise KeyboardInterrupt
        yield

    class Panic(BaseException):
        """As PyO3's: no Exception."""

    @asynccontextmanager
    async def panicking(context):
        raise Panic("index out of bounds")
        yield

    @asynccontextmanager
    async def panicking_late(context):
        yield Source(context)
        raise Panic("on the way out")

    @asynccontextmanager
    async def panicking_together(context):
        raise BaseExceptionGroup("all", [Panic("both of us"), ValueError()])
        yield

    @asynccontextmanager
    async def interrupted_together(context):
        raise BaseExceptionGroup("all", [KeyboardInterrupt(), ValueError()])
        yield

    async def undecorated(context):
        return Source(context)

    def undecorated_deep(context):
        return undecorated(context)

    async def generating(context):
        yield Source(context)

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    @asynccontextmanager
    async def speechless(context):
        raise Mute
        yield

    @asynccontextmanager
    async def sticky(context):
        source = Source(context)
        try:
            yield source
        except BaseException as error:
            source.left = error
            raise
        source.left = True
        raise RuntimeError("cannot let go")

    @asynccontextmanager
    async def swallowing(context):
        with contextlib.suppress(ValueError):
            yield Source(context)

    @asynccontextmanager
    async def grouping(context):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            try:
                yield Source(context)
            finally:
                tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def dying(context):
        async with anyio.create_task_group() as tasks:
            async def die():
                raise RuntimeError("the cat ate the socket")
            tasks.start_soon(die)
            yield Source(context)

    not_callable = "a text"
''')
QUITTER = "raise SystemExit(3)"
PANICKER = "class Panic(BaseException): ...\nraise Panic('while it was imported')"


@pytest.fixture
def anyio_backend() -> str:
    """Nothing here depends on the loop."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution with one adapter of each kind."""
    install(
        monkeypatch,
        tmp_path / "site",
        {
            "gglib_test_stranger": STRANGER,
            "gglib_test_bad_import": "import no_such_module",
            "gglib_test_quitter": QUITTER,
            "gglib_test_panicker": PANICKER,
        },
        {
            MODEL_SOURCES: {
                "good": "gglib_test_stranger:good",
                "broken": "gglib_test_stranger:broken",
                "refusing": "gglib_test_stranger:refusing",
                "plain": "gglib_test_stranger:no_context_manager",
                "wrong": "gglib_test_stranger:wrong",
                "nowhere": "gglib_test_stranger:no_such_name",
                "unimportable": "gglib_test_bad_import:anything",
                "quitter": "gglib_test_quitter:anything",
                "panicker": "gglib_test_panicker:anything",
                **{
                    name: f"gglib_test_stranger:{name}"
                    for name in (
                        "quitting",
                        "interrupted",
                        "interrupted_together",
                        "panicking",
                        "panicking_late",
                        "panicking_together",
                        "undecorated",
                        "undecorated_deep",
                        "generating",
                        "speechless",
                        "sticky",
                        "swallowing",
                        "grouping",
                        "dying",
                        "not_callable",
                        "Source",
                    )
                },
            }
        },
    )


async def open_source(stack: AsyncExitStack, name: str, tmp_path: Path, **settings: Any) -> Any:
    """Open a model source on the stack."""
    context = make_context(tmp_path, name=name, settings=settings)
    return await open_adapter(stack, MODEL_SOURCES, name, ModelSource, context)  # type: ignore[type-abstract]


async def test_strangers_adapter_is_entered_and_left_like_ours(tmp_path: Path) -> None:
    """It gets its context, and is left with the stack."""
    async with AsyncExitStack() as stack:
        source = await open_source(stack, "good", tmp_path, size=3)
        assert isinstance(source, ModelSource)
        assert source.context.settings == {"size": 3}  # type: ignore[attr-defined]
        assert not source.left  # type: ignore[attr-defined]
    assert source.left  # type: ignore[attr-defined]


def test_names_of_a_group_are_ours_and_the_strangers() -> None:
    """Sorted; other groups are not touched."""
    names = adapter_names(MODEL_SOURCES)
    assert {"file", "good", "wrong"} <= set(names)
    assert list(names) == sorted(names)
    assert "good" not in adapter_names(ENGINES)
    assert adapter_names("gglib.no_such_group") == ()


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (ENGINES, {"llama-server", "embedded", "command"}),
        (MODEL_CATALOGS, {"sqlite"}),
        (PROCESS_RUNNERS, {"local"}),
        (PROCESS_TABLES, {"psutil"}),
        (SERVER_REGISTRIES, {"sqlite"}),
    ],
)
def test_own_adapters_are_registered(group: str, names: set[str]) -> None:
    """As a stranger's are; an installation that lost one is told apart."""
    assert names <= set(adapter_names(group))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "not installed; known: Source, broken"),
        ("quitter", "SystemExit: 3"),
        ("quitting", "SystemExit: I am done"),
        ("panicker", "Panic: while it was imported"),
        ("panicking", "Panic: index out of bounds"),
        ("panicking_together", "Panic: both of us"),
        ("undecorated", "is a coroutine: decorate the factory with @asynccontextmanager"),
        ("undecorated_deep", "is a coroutine: decorate the factory with @asynccontextmanager"),
        ("generating", "is an async generator: decorate the factory with @asynccontextmanager"),
        ("speechless", "Mute (from"),
        ("not_callable", "is a str, and no factory"),
        ("Source", "is a class, and no factory"),
        ("broken", "RuntimeError: the wrong moon"),
        ("plain", "TypeError"),
        ("nowhere", "AttributeError"),
        ("unimportable", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("wrong", "provides a object, which is no ModelSource"),
    ],
)
async def test_broken_adapter_is_named_with_its_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    """Whatever a stranger's code does, the user learns whose it is."""
    async with AsyncExitStack() as stack:
        with pytest.raises(AdapterError) as caught:
            await open_source(stack, name, tmp_path)
    assert (caught.value.group, caught.value.name) == (MODEL_SOURCES, name)
    assert reason in caught.value.reason
    assert "gglib doctor" in str(caught.value)
    if name != "missing":
        assert "(from gglib-test-stranger 1.0)" in caught.value.reason


async def test_interrupt_while_an_adapter_opens_is_no_fault_of_its(tmp_path: Path) -> None:
    """Ctrl-C is the user's, and ends the command; in a group with others as well."""
    async with AsyncExitStack() as stack:
        with pytest.raises(KeyboardInterrupt):
            await open_source(stack, "interrupted", tmp_path)
        with pytest.raises(BaseExceptionGroup):
            await open_source(stack, "interrupted_together", tmp_path)


def install_twice(monkeypatch: pytest.MonkeyPatch, folder: Path, *places: str) -> None:
    """Install two distributions that both have a source ``twin``."""
    for number, place in enumerate(places, 1):
        install(
            monkeypatch,
            folder / f"site-{number}",
            {},
            {MODEL_SOURCES: {"twin": place}},
            distribution=f"gglib-test-twin-{number}",
        )


async def test_name_of_two_distributions_is_neithers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them is meant, only the user knows."""
    install_twice(monkeypatch, tmp_path, "gglib_test_stranger:good", "gglib_test_stranger:sticky")
    async with AsyncExitStack() as stack:
        with pytest.raises(AdapterError) as caught:
            await open_source(stack, "twin", tmp_path)
    assert caught.value.reason == (
        "registered by gglib-test-twin-1 1.0 and gglib-test-twin-2 1.0; uninstall one of them"
    )


async def test_name_of_gglibs_own_stays_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever registers it too breaks nobody's commands, and is told by the survey."""
    install(
        monkeypatch,
        tmp_path / "squatter",
        {},
        {MODEL_SOURCES: {"file": "gglib_test_stranger:good"}},
        distribution="gglib-test-squatter",
    )
    async with AsyncExitStack() as stack:
        source = await open_source(stack, "file", tmp_path)
    assert type(source).__module__.startswith("gglib_adapters.")
    assert distribution_of(MODEL_SOURCES, "file") is None
    (squatter,) = [each for each in survey_plugins() if each.name == "file"]
    assert (squatter.distribution, squatter.shadowed) == ("gglib-test-squatter", True)
    assert squatter.error is not None
    assert squatter.error.reason == "its name is taken by gglib's own"


async def test_same_adapter_registered_twice_is_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata that an upgrade left behind."""
    install_twice(monkeypatch, tmp_path, "gglib_test_stranger:good", "gglib_test_stranger:good")
    async with AsyncExitStack() as stack:
        assert isinstance(await open_source(stack, "twin", tmp_path), ModelSource)


BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


async def open_told(stack: AsyncExitStack, name: str, tmp_path: Path, sink: RecordingSink) -> Any:
    """Open a model source on the stack; its events go to the sink."""
    context = make_context(tmp_path, name=name, events=sink)
    return await open_adapter(stack, MODEL_SOURCES, name, ModelSource, context)  # type: ignore[type-abstract]


async def test_adapter_that_fails_while_it_is_left_hides_nothing(tmp_path: Path) -> None:
    """The result stands, the others are left too, and the failure is an event."""
    sink = RecordingSink()
    async with AsyncExitStack() as stack:
        first = await open_told(stack, "good", tmp_path, sink)
        await open_told(stack, "sticky", tmp_path, sink)
    assert first.left is True
    (event,) = sink.events
    assert event == AdapterFailed(
        at=event.at,
        group=MODEL_SOURCES,
        adapter_name="sticky",
        reason="failed while it was left: RuntimeError: cannot let go",
    )


@BOTH
async def test_adapter_that_panics_while_it_is_left_hides_nothing(tmp_path: Path) -> None:
    """What it raises is no ``Exception``: contained all the same."""
    sink = RecordingSink()
    async with AsyncExitStack() as stack:
        first = await open_told(stack, "good", tmp_path, sink)
        await open_told(stack, "panicking_late", tmp_path, sink)
    assert first.left is True
    (event,) = sink.events
    assert isinstance(event, AdapterFailed)
    assert event.reason == "failed while it was left: Panic: on the way out"


@BOTH
async def test_cancellation_is_nobodys_fault() -> None:
    """Nor is a group with one in it; what was raised beside a loop has none to be told from."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
            await anyio.sleep_forever()
        assert not is_fault(caught.value)
        assert not is_fault(BaseExceptionGroup("all", [caught.value, ValueError()]))


def test_fault_is_told_without_a_loop() -> None:
    """The survey runs anywhere."""
    assert is_fault(BaseException())
    assert not is_fault(GeneratorExit())


@BOTH
@pytest.mark.parametrize("name", ["sticky", "swallowing", "grouping"])
async def test_error_of_the_block_comes_out_as_itself(tmp_path: Path, name: str) -> None:
    """The adapter sees it, and neither keeps it nor wraps it."""
    sink, error = RecordingSink(), ValueError("the block's own")
    sources = []

    async def work() -> None:
        async with AsyncExitStack() as stack:
            sources.append(await open_told(stack, name, tmp_path, sink))
            raise error

    with pytest.raises(ValueError, match="the block's own") as caught:
        await work()
    assert caught.value is error
    if name == "sticky":
        assert sources[0].left is error
    assert sink.events == []


@BOTH
@pytest.mark.parametrize("name", ["sticky", "swallowing", "grouping"])
async def test_cancellation_passes_through_adapters(tmp_path: Path, name: str) -> None:
    """A timeout of the user's ends what it is around, and nothing else."""
    sink = RecordingSink()
    with anyio.CancelScope() as scope:
        async with AsyncExitStack() as stack:
            await open_told(stack, name, tmp_path, sink)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert sink.events == []


@BOTH
async def test_adapter_whose_own_task_dies_is_named(tmp_path: Path) -> None:
    """It takes the block with it: who did that is told, and why."""
    sink = RecordingSink()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            await open_told(stack, "dying", tmp_path, sink)
            await anyio.sleep_forever()

    with pytest.raises(AdapterError, match="the cat ate the socket") as caught:
        await work()
    assert caught.value.name == "dying"
    assert sink.names == ["adapter.failed"]


def test_survey_tells_whose_each_adapter_is_and_which_are_broken() -> None:
    """Those of others alone; whatever their import raises is contained."""
    found = {plugin.name: plugin for plugin in survey_plugins()}
    assert "file" not in found
    good = found["good"]
    assert (good.group, good.distribution, good.version, good.error) == (
        MODEL_SOURCES,
        "gglib-test-stranger",
        "1.0",
        None,
    )
    broken = ("unimportable", "quitter", "panicker", "nowhere", "not_callable", "Source")
    for name in (*broken, "undecorated", "generating"):
        assert found[name].error is not None, name


async def test_adapters_own_error_is_told_as_it_is(tmp_path: Path) -> None:
    """It knows better than we what is wrong."""
    async with AsyncExitStack() as stack:
        with pytest.raises(EngineNotFound, match="elsewhere"):
            await open_source(stack, "refusing", tmp_path)


async def test_empty_group_says_that_the_installation_is_not_whole(tmp_path: Path) -> None:
    """What a half-removed package looks like."""
    async with AsyncExitStack() as stack:
        with pytest.raises(AdapterError, match="installed whole"):
            await open_adapter(stack, "gglib.nothing", "x", Engine, make_context(tmp_path))  # type: ignore[type-abstract]
