"""The embedded engine's command line, and both ends of its flags."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from support.strategies import server_configs

from gglib.domain.config import ServerConfig
from gglib.errors import ConfigurationError, EngineCannot, EngineNotFound
from gglib.testing.contexts import make_context
from gglib_adapters.engines.embedded import EmbeddedEngine, open_embedded_engine
from gglib_adapters.engines.embedded_flags import help_text
from gglib_adapters.engines.embedded_server import main, parse
from gglib_adapters.engines.llama_flags import build_argv
from gglib_adapters.engines.llama_help import parse_help

pytestmark = pytest.mark.anyio

CONFIG = ServerConfig(model_id=1, model_name="m", model_path=Path("/m.gguf"))


async def test_a_missing_package_is_told_with_the_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is imported to find out; the first way is the extra."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    async with open_embedded_engine(make_context(tmp_path, name="embedded")) as engine:
        with pytest.raises(EngineNotFound, match=r"xllamacpp is not installed.*gglib\[llama\]"):
            await engine.probe()
        with pytest.raises(EngineNotFound, match="not been probed"):
            engine.command(CONFIG, 1)


async def test_the_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 MB of code stay out of the gateway's process."""
    package = tmp_path / "xllamacpp"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    metadata = tmp_path / "xllamacpp-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: xllamacpp\nVersion: 1.2.3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    engine = EmbeddedEngine("embedded", tmp_path)
    probe = await engine.probe()
    assert (probe.path, probe.version, probe.source) == (
        package / "__init__.py",
        "1.2.3",
        "package",
    )
    assert engine.command(CONFIG, 4711)[:4] == [
        sys.executable,
        "-P",
        "-m",
        "gglib_adapters.engines.embedded_server",
    ]


async def test_a_setting_is_refused(tmp_path: Path) -> None:
    """The engine has none."""
    context = make_context(tmp_path, name="embedded", settings={"path": "x"})
    with pytest.raises(ConfigurationError, match="no settings, so not 'path'"):
        async with open_embedded_engine(context):
            raise AssertionError("it opened")


@given(config=server_configs)
def test_what_the_engine_spells_the_server_understands(config: ServerConfig) -> None:
    """Both ends read one table: the child parses every command line to what was meant."""
    flags = parse_help(help_text())
    try:
        line = build_argv([], config, 4711, flags, engine="embedded")
    except EngineCannot as refusal:
        # A colon separates an adapter's path from its scale.
        assert refusal.field == "lora_adapters"  # noqa: PT017
        return
    known = line[: len(line) - len(config.extra_args)]
    if config.slot_save_path is not None:
        known[known.index("--slot-save-path") + 1] = "/"
    options = parse(known)
    assert options.model == str(config.model_path)
    assert options.ctx_size == config.context_size
    assert options.gpu_layers == config.gpu_layers
    assert options.flash_attn == config.flash_attention
    assert options.embedding == config.embeddings
    assert options.port == 4711
    assert (options.jinja, options.no_jinja) == (config.jinja is True, config.jinja is False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m", "--rpc", "x"], "unrecognized arguments: --rpc x"),
        (["--model", "m", "--mod", "x"], "unrecognized arguments: --mod x"),
        (["--model", "m", "--ctx-size", "many"], "invalid int value: 'many'"),
        (["--model", "m", "--pooling", "max"], "invalid choice: 'max'"),
        (["--model", "m", "--host", "0.0.0.0"], "loopback only"),
        (["--model", "m", "--slot-save-path", "/no/such"], "not a folder"),
        (["--port", "1"], "--model is missing"),
        (["--model"], "expected one argument"),
        (["model.gguf"], "unrecognized arguments: model.gguf"),
    ],
)
def test_a_wrong_flag_ends_the_server_with_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag and the value are named, on stderr, in one line."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_and_version_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """Both without loading anything."""
    assert main(["--help"]) == 0
    assert "--spec-draft-n-max N" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("version: xllamacpp ")
