"""Adapters by entry points: real distributions on the path, good ones and broken ones."""

from __future__ import annotations

import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.distributions import install

from gglib.errors import AdapterError, EngineNotFound
from gglib.plugins import (
    ENGINES,
    MODEL_CATALOGS,
    MODEL_SOURCES,
    PROCESS_RUNNERS,
    PROCESS_TABLES,
    SERVER_REGISTRIES,
    adapter_names,
    open_adapter,
)
from gglib.ports.engine import Engine
from gglib.ports.model_source import ModelSource
from gglib.testing.contexts import make_context

STRANGER = textwrap.dedent('''
    """A stranger's adapters."""
    from contextlib import asynccontextmanager
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
''')


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
        {"gglib_test_stranger": STRANGER, "gglib_test_bad_import": "import no_such_module"},
        {
            MODEL_SOURCES: {
                "good": "gglib_test_stranger:good",
                "broken": "gglib_test_stranger:broken",
                "refusing": "gglib_test_stranger:refusing",
                "plain": "gglib_test_stranger:no_context_manager",
                "wrong": "gglib_test_stranger:wrong",
                "nowhere": "gglib_test_stranger:no_such_name",
                "unimportable": "gglib_test_bad_import:anything",
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
        ("missing", "not installed; known: broken, file, good"),
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
