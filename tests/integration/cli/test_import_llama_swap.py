"""``gglib model import llama-swap``: from its file to models that answer here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.commands import STUB, Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A data directory with nothing in it."""
    return Home.make(tmp_path)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A configuration of llama-swap's; one of its models cannot be served here."""
    path = tmp_path / "llama-swap.yaml"
    # The macro is all that changes: JSON as one word of a shell.
    said = '{"port": ${PORT}, "model_name": "${MODEL_ID}"}'
    path.write_text(
        f"logLevel: debug\nmacros:\n  stub: {sys.executable} -I -S {STUB}\n"
        f"models:\n  a:\n    cmd: |\n      ${{stub}} '{said}'\n    aliases: [other]\n"
        "  far:\n    cmd: ssh box vllm\n    proxy: http://box:8000\n"
    )
    return path


def test_imported_model_answers(home: Home, theirs: Path) -> None:
    """By its name and its alias, in a gateway that was told nothing else."""
    done = home.run("model", "import", "llama-swap", str(theirs))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {home.path / 'gglib.toml'}: 1 model; 1 left out\n"
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        "llama-swap.yaml:1",
        "llama-swap.yaml:11",
    ]
    assert home.run("config", "check").returncode == 0
    with home.serve() as gateway:
        for name in ("a", "other"):
            assert gateway.chat(name).status_code == 200


def test_settings_that_are_there_are_kept(home: Home, theirs: Path, tmp_path: Path) -> None:
    """Unless somebody says that they may go; elsewhere, and on the terminal, is possible."""
    home.configure("[pool]\nmax_size = 3\n")
    settings = home.path / "gglib.toml"
    done = home.run("model", "import", "llama-swap", str(theirs))
    assert done.returncode == 2
    assert "there is a settings file already" in done.stderr
    assert settings.read_text() == "[pool]\nmax_size = 3\n"
    printed = home.run("model", "import", "llama-swap", str(theirs), "--print").stdout
    assert "[models.a]" in printed
    told = home.json("model", "import", "llama-swap", str(theirs), "--output", f"{tmp_path}/o.toml")
    assert told["models"] == ["a"]
    assert [each["line"] for each in told["left_out"]] == [1, 11]
    assert (tmp_path / "o.toml").read_text() == printed
    assert home.run("model", "import", "llama-swap", str(theirs), "--replace").returncode == 0
    assert settings.read_text() == printed
    assert [path.name for path in home.path.iterdir() if "toml" in path.name] == ["gglib.toml"]


def test_file_that_is_no_configuration_is_an_error(home: Home, tmp_path: Path) -> None:
    """In one line, with the place; and nothing is written."""
    path = tmp_path / "bad.yaml"
    path.write_text("models:\n  a: [\n")
    done = home.run("model", "import", "llama-swap", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"gglib: {path}:3: not YAML")
    assert home.run("model", "import", "llama-swap", "/nowhere.yaml").returncode == 2
    assert not (home.path / "gglib.toml").exists()


def test_settings_are_printed_as_json_too(home: Home, theirs: Path) -> None:
    """For programs that want to change them first."""
    told = home.json("model", "import", "llama-swap", str(theirs), "--print")
    assert told["path"] is None
    assert told["settings"]["models"]["a"]["aliases"] == ["other"]
