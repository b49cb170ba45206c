"""Reading a llama-server's --help."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib_adapters.engines.embedded_flags import FLAGS, help_text
from gglib_adapters.engines.llama_help import parse_help

FOLDER = Path(__file__).parent / "golden"
NEW = parse_help((FOLDER / "help-new.txt").read_text(encoding="utf-8"))
OLD = parse_help((FOLDER / "help-old.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("spelling", "new", "old"),
    [
        ("--model", True, True),
        ("-m", True, True),
        ("--load-mode", True, False),
        ("--mlock", False, True),
        ("--no-mmap", False, True),
        ("--no-jinja", True, False),
        ("--cache-ram", True, False),
        ("--spec-draft-n-max", True, False),
        ("--draft-max", False, True),
        ("--draft-p-min", True, True),
        ("--spec-draft-ncmoe", True, False),
    ],
)
def test_a_spelling_is_known_only_where_it_works(spelling: str, new: bool, old: bool) -> None:
    """Flags that a binary lists only to say that they were removed are not known."""
    assert (new, old) == (spelling in NEW, spelling in OLD)


def test_no_option_of_a_real_help_is_lost() -> None:
    """Every line that begins with a dash gave an option, but for the five removed ones."""
    lines = [line for line in (FOLDER / "help-new.txt").read_text().splitlines() if line[:1] == "-"]
    heads = [line for line in lines if not line.startswith("-----")]
    assert len(heads) - 5 == len({id(option) for option in NEW.options.values()})


@pytest.mark.parametrize(
    ("spelling", "hint", "choices"),
    [
        ("--flash-attn", "[on|off|auto]", {"on", "off", "auto"}),
        ("--pooling", "{none,mean,cls,last,rank}", {"none", "mean", "cls", "last", "rank"}),
        (
            "--cache-type-k",
            "TYPE",
            {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"},
        ),
        ("--load-mode", "MODE", {"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}),
        ("--reasoning-format", "FORMAT", {"none", "deepseek", "deepseek-legacy", "auto"}),
        ("--ctx-size", "N", set()),
        ("--metrics", "", set()),
        ("--tensor-split", "N0,N1,N2,...", set()),
    ],
)
def test_an_option_tells_what_it_takes(spelling: str, hint: str, choices: set[str]) -> None:
    """Hints and listed words are read out of every form the text has for them."""
    option = NEW.options[spelling]
    assert (hint, choices) == (option.hint, set(option.choices))


def test_an_old_bare_flag_takes_no_value() -> None:
    """The padding after a bare flag is not taken for a hint."""
    assert OLD.options["--flash-attn"].takes_value is False
    assert NEW.options["--flash-attn"].takes_value is True


def test_the_embedded_servers_help_reads_like_llama_servers() -> None:
    """Its own table survives being printed and parsed."""
    known = parse_help(help_text())
    for flag in FLAGS:
        for spelling in flag.spellings:
            option = known.options[spelling]
            assert flag.spellings == option.spellings
            assert (flag.kind is not None) == option.takes_value
            if flag.choices:
                assert set(flag.choices) == set(option.choices)


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    """A text that is no help gives options or none, never an error."""
    for spelling in parse_help(text).options:
        assert spelling.startswith("-")
