"""``gglib model``: adding, listing, showing and removing, as a user does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import Home

from gglib.services.demo.tiny_gguf import tiny_gguf


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    return path


def test_added_model_is_listed_shown_and_removed(home: Home, tiny: Path) -> None:
    """The whole life of an entry; the file is not touched."""
    added = home.run("model", "add", str(tiny), "--name", "small", "--alias", "s", "--alias", "t")
    assert (added.returncode, added.stdout[:24]) == (0, "added small (llama, 115K")
    listed = home.run("model", "list")
    assert listed.stdout.splitlines()[0].split()[:2] == ["NAME", "ARCHITECTURE"]
    assert listed.stdout.splitlines()[1].startswith("small  llama")
    (model,) = home.json("model", "list")
    assert (model["name"], model["aliases"]) == ("small", ["s", "t"])
    assert home.json("model", "show", "t")["paths"] == [str(tiny)]
    assert "architecture" in home.run("model", "show", "small").stdout
    assert home.run("model", "remove", "s").returncode == 0
    assert home.json("model", "list") == []
    assert tiny.exists()


def test_empty_catalog_says_what_to_do(home: Home) -> None:
    """A first look is no dead end."""
    assert "gglib model add" in home.run("model", "list").stdout


def test_bad_files_are_refused_in_one_line_with_their_reason(
    home: Home, tiny: Path, tmp_path: Path
) -> None:
    """Each names the file, and leaves nothing behind."""
    (tmp_path / "text.gguf").write_text("once upon a time")
    (tmp_path / "cut.gguf").write_bytes(tiny.read_bytes()[:5000])
    (tmp_path / "empty.gguf").touch()
    for name, status, reason in [
        ("missing.gguf", 3, "no such file"),
        ("", 1, "a directory"),
        ("text.gguf", 1, "not a GGUF file"),
        ("cut.gguf", 1, "truncated"),
        ("empty.gguf", 1, "empty"),
    ]:
        done = home.run("model", "add", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (status, "")
        assert len(done.stderr.splitlines()) == 1
        assert reason in done.stderr
        assert str(tmp_path / name).rstrip("/") in done.stderr
    assert home.json("model", "list") == []


def test_taken_name_is_refused_with_its_holder(home: Home, tiny: Path) -> None:
    """Also an alias that is another's name."""
    home.run("model", "add", str(tiny), "--name", "one")
    again = home.run("model", "add", str(tiny), "--name", "one")
    assert (again.returncode, "'one' is taken by model 'one'" in again.stderr) == (4, True)
    alias = home.run("model", "add", str(tiny), "--name", "two", "--alias", "one")
    assert alias.returncode == 4


@pytest.mark.parametrize("name", ["../x", "-x", "a\nb", "", "x" * 300])
def test_hostile_name_is_refused(home: Home, tiny: Path, name: str) -> None:
    """A name is used in paths and URLs."""
    done = home.run("model", "add", str(tiny), f"--name={name}")
    assert done.returncode == 2
    assert "name is" in done.stderr


def test_unknown_model_is_refused_with_close_names(home: Home, tiny: Path) -> None:
    """A typing error is named."""
    home.run("model", "add", str(tiny), "--name", "qwen2.5-7b")
    done = home.run("model", "show", "qwen2.5-7")
    assert (done.returncode, done.stderr) == (
        3,
        "gglib: no model named 'qwen2.5-7'; did you mean 'qwen2.5-7b'?\n",
    )


def test_declared_model_is_listed_and_cannot_be_removed(home: Home) -> None:
    """What the file declares is the file's."""
    home.configure('[models.declared]\npath = "x.gguf"\naliases = ["d"]\n')
    (model,) = home.json("model", "list")
    assert (model["name"], model["source"]) == ("declared", "config")
    done = home.run("model", "remove", "d")
    assert (done.returncode, "configuration file" in done.stderr) == (2, True)


def test_declared_model_hides_the_row_of_its_name(home: Home, tiny: Path) -> None:
    """The file wins; without it the row is there again, under the same id."""
    home.run("model", "add", str(tiny), "--name", "m")
    (row,) = home.json("model", "list")
    home.configure('[models.m]\npath = "other.gguf"\n')
    (declared,) = home.json("model", "list")
    assert declared["id"] == row["id"]
    assert declared["paths"] == [str(home.path / "other.gguf")]
    (home.path / "gglib.toml").unlink()
    assert home.json("model", "list") == [row]


def test_fit_is_told_in_one_line(home: Home, tiny: Path) -> None:
    """What is needed, free, and for what; as JSON with every part."""
    home.run("model", "add", str(tiny))
    done = home.run("model", "fit", "tiny", "--gpu-layers", "0")
    assert done.returncode == 0
    assert re.fullmatch(r"[\d.]+ GiB of [\d.]+ free, 3/3 layers, ctx 2048\n", done.stdout), (
        done.stdout
    )
    found = home.json("model", "fit", "tiny", "--context-size", "512", "--parallel", "1")
    assert (found["fits"], found["context_size"], found["slots"]) == (True, 512, 1)
    device = found["devices"][0]
    parts = ("weights", "kv", "compute", "other")
    assert device["needed_bytes"] == sum(device[f"{part}_bytes"] for part in parts)


def test_model_that_does_not_fit_is_status_1_with_a_way_out(home: Home, tiny: Path) -> None:
    """The largest context that would."""
    home.run("model", "add", str(tiny))
    done = home.run("model", "fit", "tiny", "--context-size", "99999999999", "--gpu-layers", "0")
    assert done.returncode == 1
    assert re.match(r"does not fit: .* ctx 99999999999; ctx \d+ would\n", done.stdout)
    missing = home.run("model", "fit", "nope")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (3, 1)
    wrong = home.run("model", "fit", "tiny", "--context-size", "0")
    assert (wrong.returncode, "context_size is 0" in wrong.stderr) == (2, True)
