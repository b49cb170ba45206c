"""The command engine: a template, filled in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.config import ServerConfig
from gglib.errors import ConfigurationError, EngineCannot, EngineNotFound
from gglib.ports.engine import Engine
from gglib.testing.contexts import make_context
from gglib_adapters.engines.command import open_command_engine

pytestmark = pytest.mark.anyio

CONFIG = ServerConfig(model_id=1, model_name="al pha", model_path=Path("/m/a.gguf"))


async def opened(folder: Path, **settings: Any) -> Engine:
    """Return a command engine with these settings."""
    async with open_command_engine(make_context(folder, name="stub", settings=settings)) as engine:
        return engine


async def test_a_template_is_filled_in(tmp_path: Path) -> None:
    """Each placeholder stands for its value, doubled braces for one, extra arguments last."""
    engine = await opened(
        tmp_path,
        command=[
            "serve",
            "{model_path}",
            "--listen={host}:{port}",
            "{model_name}",
            "{context_size}",
            '{{"n": {port}}}',
            "",
        ],
    )
    config = attrs.evolve(CONFIG, context_size=512, extra_args=("{port}", "--last"))
    assert engine.command(config, 80) == [
        "serve",
        "/m/a.gguf",
        "--listen=127.0.0.1:80",
        "al pha",
        "512",
        '{"n": 80}',
        "",
        "{port}",
        "--last",
    ]


async def test_a_text_is_split_like_a_shells_line(tmp_path: Path) -> None:
    """Quotes hold words together; values with spaces stay one argument."""
    engine = await opened(tmp_path, command="serve --title 'a b' --name {model_name}")
    assert engine.command(CONFIG, 1) == ["serve", "--title", "a b", "--name", "al pha"]


@given(name=st.text(min_size=1), path=st.text(min_size=1))
async def test_values_are_never_read_as_templates(name: str, path: str) -> None:
    """Braces in a model's name or path are just braces."""
    engine = await opened(Path("/"), command=["x", "{model_name}", "{model_path}"])
    config = ServerConfig(model_id=1, model_name="m", model_path=Path("/m"))
    object.__setattr__(config, "model_name", name)
    object.__setattr__(config, "model_path", path)
    assert engine.command(config, 1) == ["x", name, path]


#: What a command line is not the place for.
NEUTRAL = {"model_id", "base_port", "port", "inference", "environment", "engine"}
TEMPLATED = {"model_name", "model_path", "extra_args"}


@pytest.mark.parametrize(
    "field",
    [field.name for field in attrs.fields(ServerConfig) if field.name not in NEUTRAL | TEMPLATED],
)
async def test_an_intent_that_the_template_does_not_name_is_refused(
    tmp_path: Path, field: str
) -> None:
    """Nothing that a user sets is dropped silently."""
    engine = await opened(tmp_path, command=["serve", "{port}"])
    config = attrs.evolve(CONFIG)
    object.__setattr__(config, field, "something")
    with pytest.raises(EngineCannot) as caught:
        engine.command(config, 1)
    assert (caught.value.engine, caught.value.field) == ("stub", field)


async def test_a_context_size_that_the_template_names_must_be_set(tmp_path: Path) -> None:
    """An argument is neither dropped nor filled with 'None'."""
    engine = await opened(tmp_path, command=["serve", "--ctx", "{context_size}"])
    with pytest.raises(EngineCannot, match=r"context_size = None.*set it for the model"):
        engine.command(CONFIG, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "has no command"),
        ({"command": []}, "expected a list of texts"),
        ({"command": ""}, "expected a list of texts"),
        ({"command": 7}, "expected a list of texts"),
        ({"command": ["x", 7]}, "has 7 in it"),
        ({"command": ["x", "a\0b"]}, "expected texts"),
        ({"command": "x 'y"}, "cannot be split"),
        ({"command": ["x", "{prt}"]}, r"'\{prt\}'.*known: .*\{port\}"),
        ({"command": ["x", "{}"]}, "unknown placeholder"),
        ({"command": ["x", "{port"]}, r"a single '\{' .* write '\{\{'"),
        ({"command": ["x", "port}"]}, r"write '\}\}'"),
        ({"command": ["x"], "comand": 1}, "did you mean 'command'"),
        ({"command": ["x"], "health_pth": 1}, "did you mean 'health_path'"),
        ({"command": ["x"], "health_path": "health"}, "begin it with '/'"),
        ({"command": ["x"], "health_status": "200"}, "expected a status"),
        ({"command": ["x"], "health_status": True}, "expected a status"),
        ({"command": ["x"], "health_status": []}, "expected a status"),
        ({"command": ["x"], "health_status": [200, 99]}, "expected a status"),
        ({"command": ["x"], "environment": ["A=1"]}, "expected a table"),
        ({"command": ["x"], "environment": {"A": 1}}, "'A' = 1; expected a text"),
        ({"command": ["x"], "environment": {"A=B": "1"}}, "'A=B'"),
        ({"command": ["x"], "working_directory": 3}, "working_directory is 3"),
        ({"command": ["x"], "api_key_variable": "A=B"}, "a variable's name"),
    ],
)
async def test_a_wrong_setting_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """Every message says which setting, what it is and what would be right."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        await opened(tmp_path, **settings)
    assert "[engines.stub]" in str(caught.value)


async def test_unset_settings_have_defaults(tmp_path: Path) -> None:
    """/health, 200, no variables, no key, the data directory."""
    engine = await opened(tmp_path, command=["x"])
    assert engine.health_path == "/health"
    assert engine.health_statuses == {200}
    assert engine.environment(CONFIG) == {}
    assert engine.api_key_variable is None
    assert engine.working_directory is None
    assert engine.name == "stub"


async def test_settings_are_told_to_the_runner(tmp_path: Path) -> None:
    """What is set is what the port says."""
    engine = await opened(
        tmp_path,
        command=["x"],
        health_path="/v1/models",
        health_status=[200, 401],
        environment={"A": "{port}"},
        working_directory=str(tmp_path),
        api_key_variable="VLLM_API_KEY",
    )
    assert engine.health_path == "/v1/models"
    assert engine.health_statuses == {200, 401}
    assert engine.environment(CONFIG) == {"A": "{port}"}
    assert engine.api_key_variable == "VLLM_API_KEY"
    assert engine.working_directory == tmp_path


@pytest.mark.parametrize(
    ("word", "directory"),
    [(sys.executable, None), ("sh", None), ("./here", "."), ("bin/there", ".")],
)
async def test_a_program_that_is_there_is_found(
    tmp_path: Path, word: str, directory: str | None
) -> None:
    """By its path, on PATH, or relative to the folder where the server will run."""
    for script in ("here", "bin/there"):
        path = tmp_path / script
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    settings = {"working_directory": str(tmp_path)} if directory else {}
    probe = await (await opened(tmp_path, command=[word], **settings)).probe()
    assert probe.source == "configuration"
    assert probe.path is not None
    assert probe.path.is_file()


@pytest.mark.parametrize("word", ["no-such-program", "/no/such/program", "./no-such-program"])
async def test_a_program_that_is_not_there_is_named(tmp_path: Path, word: str) -> None:
    """The error names the program and where to correct it."""
    engine = await opened(tmp_path, command=[word])
    with pytest.raises(EngineNotFound) as caught:
        await engine.probe()
    assert f"'{word}'" in str(caught.value)
    assert "[engines.stub]" in str(caught.value)


async def test_a_working_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Noticed by the probe, before anything starts."""
    engine = await opened(tmp_path, command=["sh"], working_directory=str(tmp_path / "gone"))
    with pytest.raises(EngineNotFound, match="gone is not a folder"):
        await engine.probe()
