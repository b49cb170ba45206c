"""Finding a llama-server, and asking it once."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gglib.domain.config import ServerConfig
from gglib.errors import ConfigurationError, EngineCannot, EngineNotFound
from gglib.testing.contexts import make_context
from gglib_adapters.engines import llama_probe
from gglib_adapters.engines.llama_probe import CACHE_FILE
from gglib_adapters.engines.llama_server import open_llama_server_engine
from gglib_adapters.engines.versions import Versions

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent / "golden"
CONFIG = ServerConfig(model_id=1, model_name="m", model_path=Path("/m.gguf"))


def program(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def llama_server(path: Path, *, help_text: str = "help-new.txt", version: str = "11434") -> Path:
    """Write a program that answers as a llama-server does, and counts how often it is asked."""
    return program(
        path,
        f"""echo "$1" >> {path}.asked
case "$1" in
--help) cat {FOLDER / help_text} ;;
--version) echo "version: {version} (abc)" >&2 ;;
esac""",
    )


def asked(path: Path) -> list[str]:
    """Return the flags that the program was run with."""
    record = Path(f"{path}.asked")
    return record.read_text().split() if record.exists() else []


@pytest.fixture(autouse=True)
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave only the shell's programs and one empty folder on PATH, and no variable."""
    folder = tmp_path / "on path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("GGLIB_LLAMA_SERVER", raising=False)
    return folder


async def test_four_places_are_looked_at_in_order(
    tmp_path: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting beats the variable, that beats PATH, that beats the installation."""
    data = tmp_path / "data"
    found = []

    async def look(settings: dict[str, str]) -> None:
        context = make_context(data, name="llama-server", settings=settings)
        async with open_llama_server_engine(context) as engine:
            probe = await engine.probe()
            found.append((probe.source, probe.path, probe.version))

    versions = Versions.of("llama-server", data)
    with versions.making("b1") as making:
        program = llama_server(making / "bin/llama-server", version="1")
        installed = versions.place(making, "b1", program, 0).path
    versions.use("b1")
    await look({})
    on_path = llama_server(bare_path / "llama-server", version="2")
    await look({})
    by_variable = llama_server(tmp_path / "variable", version="3")
    monkeypatch.setenv("GGLIB_LLAMA_SERVER", str(by_variable))
    await look({})
    by_setting = llama_server(tmp_path / "setting", version="4")
    await look({"path": str(by_setting)})

    assert found == [
        ("installed", installed, "1 (abc)"),
        ("PATH", on_path, "2 (abc)"),
        ("GGLIB_LLAMA_SERVER", by_variable, "3 (abc)"),
        ("setting", by_setting, "4 (abc)"),
    ]


async def test_without_any_the_ways_to_get_one_are_told(tmp_path: Path) -> None:
    """The error names every way."""
    async with open_llama_server_engine(make_context(tmp_path, name="llama-server")) as engine:
        with pytest.raises(EngineNotFound) as caught:
            await engine.probe()
    for way in (
        "gglib engine install",
        "gglib[llama]",
        "PATH",
        "GGLIB_LLAMA_SERVER",
        "command engine",
    ):
        assert way in str(caught.value)
    assert len(caught.value.ways) == 5


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.write_text("no program"), "not executable"),
    ],
)
@pytest.mark.parametrize("by_setting", [True, False])
async def test_a_named_binary_that_is_unusable_is_not_replaced_by_another(
    tmp_path: Path,
    bare_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: object,
    reason: str,
    by_setting: bool,
) -> None:
    """What the user named is what is used, or an error; PATH is no way out."""
    llama_server(bare_path / "llama-server")
    named = tmp_path / "named"
    make(named)  # type: ignore[operator]
    if not by_setting:
        monkeypatch.setenv("GGLIB_LLAMA_SERVER", str(named))
    settings = {"path": str(named)} if by_setting else {}
    context = make_context(tmp_path, name="llama-server", settings=settings)
    async with open_llama_server_engine(context) as engine:
        with pytest.raises(EngineNotFound, match=reason):
            await engine.probe()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'bind: command line'; exit 3", "is not a llama-server we know"),
        ("exit 0", "it says nothing"),
        ("head -c 3000000 /dev/zero", "prints more than"),
    ],
)
async def test_a_program_that_is_no_llama_server_is_refused(
    tmp_path: Path, body: str, reason: str
) -> None:
    """Whatever it prints, how much, and how it ends, there is an error that says so."""
    other = program(tmp_path / "other", body)
    context = make_context(tmp_path, name="llama-server", settings={"path": str(other)})
    async with open_llama_server_engine(context) as engine:
        with pytest.raises(EngineNotFound, match=reason):
            await engine.probe()


async def test_a_program_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent program is killed when the time is up."""
    monkeypatch.setattr(llama_probe, "TIMEOUT_S", 0.05)
    silent = program(tmp_path / "silent", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    context = make_context(tmp_path, name="llama-server", settings={"path": str(silent)})
    async with open_llama_server_engine(context) as engine:
        with pytest.raises(EngineNotFound, match="did not end within"):
            await engine.probe()
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_binary_is_asked_once_by_all_processes(tmp_path: Path) -> None:
    """The answer is kept in a private file; a changed binary is asked again."""
    binary = llama_server(tmp_path / "llama-server")
    context = make_context(tmp_path, name="llama-server", settings={"path": str(binary)})
    for _process in range(2):
        async with open_llama_server_engine(context) as engine:
            await engine.probe()
            assert "--load-mode" in engine.command(attrs_mlock(), 1)
    cache = tmp_path / "cache" / CACHE_FILE
    assert asked(binary) == ["--help", "--version"]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600

    llama_server(binary, help_text="help-old.txt", version="6000")
    async with open_llama_server_engine(context) as engine:
        assert (await engine.probe()).version == "6000 (abc)"
        assert "--mlock" in engine.command(attrs_mlock(), 1)
    assert len(asked(binary)) == 4


def attrs_mlock() -> ServerConfig:
    """Return a configuration whose spelling tells old binaries from new ones."""
    return ServerConfig(model_id=1, model_name="m", model_path=Path("/m.gguf"), mlock=True)


async def test_a_binary_replaced_while_gglib_runs_is_noticed(tmp_path: Path) -> None:
    """The same engine takes the new spelling at its next probe."""
    binary = llama_server(tmp_path / "llama-server", help_text="help-old.txt")
    context = make_context(tmp_path, name="llama-server", settings={"path": str(binary)})
    async with open_llama_server_engine(context) as engine:
        await engine.probe()
        with pytest.raises(EngineCannot, match="spec_draft_n_max"):
            engine.command(drafting(), 1)
        llama_server(binary, version="11434, newer")
        await engine.probe()
        assert "draft-mtp" in engine.command(drafting(), 1)


def drafting() -> ServerConfig:
    """Return a configuration that only new binaries can express."""
    return ServerConfig(model_id=1, model_name="m", model_path=Path("/m.gguf"), spec_draft_n_max=2)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"PATH": 3}', '{"PATH": {"help_text": 1}}'])
async def test_a_damaged_cache_is_made_again(tmp_path: Path, content: str) -> None:
    """The cache is never trusted to be in order."""
    binary = llama_server(tmp_path / "llama-server")
    cache = tmp_path / "cache" / CACHE_FILE
    cache.parent.mkdir()
    cache.write_text(content.replace("PATH", str(binary)))
    context = make_context(tmp_path, name="llama-server", settings={"path": str(binary)})
    async with open_llama_server_engine(context) as engine:
        await engine.probe()
    assert str(binary) in json.loads(cache.read_text())


async def test_capabilities_follow_the_binary(tmp_path: Path) -> None:
    """What a binary has no flag for, its servers cannot do."""
    reduced = (FOLDER / "help-new.txt").read_text().replace("--metrics ", "--other   ")
    (tmp_path / "reduced.txt").write_text(reduced)
    binary = llama_server(tmp_path / "llama-server", help_text=str(tmp_path / "reduced.txt"))
    context = make_context(tmp_path, name="llama-server", settings={"path": str(binary)})
    async with open_llama_server_engine(context) as engine:
        assert engine.capabilities.metrics
        await engine.probe()
        assert not engine.capabilities.metrics
        assert engine.capabilities.slots
        assert "--metrics" not in engine.command(CONFIG, 1)


async def test_a_command_before_the_probe_is_refused(tmp_path: Path) -> None:
    """Without a binary there is no spelling."""
    async with open_llama_server_engine(make_context(tmp_path, name="llama-server")) as engine:
        with pytest.raises(EngineNotFound, match="not been probed"):
            engine.command(CONFIG, 1)
        assert engine.api_key_variable == "LLAMA_API_KEY"
        assert engine.name == "llama-server"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pth": "/x"}, "no key 'pth'; did you mean 'path'"),
        ({"zzz": 1}, "known keys: path"),
        ({"path": 7}, "expected a text"),
    ],
)
async def test_a_wrong_setting_is_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    """Unknown keys bring the nearest one, wrong types say what is expected."""
    context = make_context(tmp_path, name="llama-server", settings=settings)
    with pytest.raises(ConfigurationError, match=message):
        async with open_llama_server_engine(context):
            raise AssertionError("it opened")
