"""YAML files: plain data, lines, and every way in which one can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gglib.errors import ConfigurationError
from gglib.settings.llama_swap import YamlFile


def read(tmp_path: Path, text: str | bytes) -> YamlFile:
    """Return a file with that text."""
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return YamlFile.read(path)


def test_file_is_read_with_lines(tmp_path: Path) -> None:
    """Keys are texts whatever they look like; dates stay as they were written."""
    file = read(tmp_path, "a: 1\nmodels:\n  7:\n    list: [x, {y: 2026-01-02}]\nempty:\n")
    assert file.data == {
        "a": 1,
        "models": {"7": {"list": ["x", {"y": "2026-01-02"}]}},
        "empty": None,
    }
    assert file.line(("models", "7", "list")) == 4
    assert file.line(("models", "7", "nothing")) == 3
    assert file.line(("nothing",)) is None


def test_merged_keys_are_there_and_own_ones_win(tmp_path: Path) -> None:
    """As YAML's users share what models have in common."""
    text = "base: &base {ttl: 1, cmd: x}\nmodels:\n  a:\n    <<: *base\n    ttl: 2\n"
    assert read(tmp_path, text).data["models"] == {"a": {"ttl": 2, "cmd": "x"}}


def test_tables_that_merge_each_other_often_are_read_at_once(tmp_path: Path) -> None:
    """However deep: each is worked out once, and of several the first one counts."""
    levels = "".join(
        f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}], k{n}: {n}}}\n" for n in range(1, 30)
    )
    found = read(tmp_path, "a0: &a0 {x: 1}\nb: &b {x: 2}\n" + levels + "c: {<<: [*b, *a29]}\n")
    assert len(found.data["a29"]) == 30
    assert found.data["c"]["x"] == 2


def test_empty_file_says_nothing(tmp_path: Path) -> None:
    """Which is no error."""
    assert read(tmp_path, "# nothing\n").data == {}


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("a: [1\nb: 2\n", "not YAML", 2),
        ("a: 1\na: 2\n", "'a' is there twice", 2),
        ("- 1\n", "not a table", None),
        ("? [1]\n: 2\n", "a key that is not a text", 1),
        (b"a: \xff\n", "not YAML", None),
        ("a: !!python/name:os.system x\n", "not YAML", 1),
        ("a: *nobody\n", "not YAML", 1),
        ("a: &a [*a]\n", "nested too deeply", 1),
        ("[" * 5000, "nested too deeply|not YAML", None),
        ("a\x00b: 1\n", "not YAML", None),
        ("--- {a: 1}\n--- {b: 2}\n", "not YAML", 2),
        (
            "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)),
            "aliases make it too large",
            None,
        ),
    ],
)
def test_file_that_is_wrong_is_refused(
    tmp_path: Path, text: str | bytes, why: str, line: int | None
) -> None:
    """With its name, and the line where that can be said."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        read(tmp_path, text)
    assert caught.value.source == str(tmp_path / "config.yaml")
    assert line is None or caught.value.line == line


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """It is not there, it is a folder, or it is too large."""
    with pytest.raises(ConfigurationError, match="No such file"):
        YamlFile.read(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="directory"):
        YamlFile.read(tmp_path)
    with pytest.raises(ConfigurationError, match="larger than 4 MiB"):
        read(tmp_path, "#" * (4 << 20) + "\n")
