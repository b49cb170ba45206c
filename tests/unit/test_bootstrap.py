"""The composition root: each part once, when it is asked for, and left in reverse."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.distributions import install

from gglib.bootstrap import SystemClock, compose, make_data_dir
from gglib.domain.ownership import OwnerKind
from gglib.errors import AdapterError, ConfigurationError, DataDirectoryUnusable
from gglib.plugins import ENGINES, PROCESS_RUNNERS
from gglib.settings import Settings, load_settings
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
    ("text", "error", "part"),
    [
        ('[engines.x]\nkind = "warp"\n', AdapterError, "'warp'"),
        ("[runners.moon]\n", AdapterError, "'moon'"),
        ("[engines.x]\n", ConfigurationError, "command"),
    ],
)
async def test_section_of_what_is_not_installed_is_named(
    tmp_path: Path, text: str, error: type[Exception], part: str
) -> None:
    """With what there is instead."""
    async with compose(settings_of(tmp_path, text), events=RecordingSink()) as parts:
        with pytest.raises(error, match=part):
            await parts.runners()


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
