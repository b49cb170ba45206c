"""What commands print."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.cli.model_views import count
from gglib.cli.output import duration, print_json, print_table, say, size, tell


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (int(7.6 * (1 << 30)), "7.6 GiB"),
        (3 << 40, "3.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_size_is_told_in_binary_units(size_bytes: int, expected: str) -> None:
    """One decimal, but no half bytes."""
    assert size(size_bytes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (2e5, "2d")],
)
def test_duration_is_told_in_its_largest_unit(seconds: float, expected: str) -> None:
    """A clock that was set back makes nothing negative."""
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(None, "-"), (0, "0"), (999, "999"), (115_000, "115K"), (7_616_000_000, "7.62B")],
)
def test_parameters_are_told_as_people_say_them(number: int | None, expected: str) -> None:
    """Three digits are enough to know a model."""
    assert count(number) == expected


cells = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[cells] * n), min_size=1)))
def test_columns_of_a_table_begin_where_their_headings_do(rows: list[tuple[str, ...]]) -> None:
    """Whatever is in them; nothing trails."""
    capture = _Capture()
    headings = [f"H{number}" for number in range(len(rows[0]))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", capture)
        print_table(headings, rows)
    first, *others = capture.text.splitlines()
    starts = [first.index(heading) for heading in headings]
    for row, line in zip(rows, others, strict=True):
        assert line == line.rstrip()
        for start, cell in zip(starts, row, strict=True):
            assert line[start : start + len(cell)] == cell


class _Capture:
    """A standard output that is no terminal, or is one."""

    def __init__(self, terminal: bool = False) -> None:
        self.text = ""
        self.terminal = terminal

    def write(self, text: str) -> None:
        """Keep it."""
        self.text += text

    def isatty(self) -> bool:
        """Say which."""
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_one_line_for_programs_and_several_for_people(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """The same data, text as it is."""
    capture = _Capture(terminal)
    monkeypatch.setattr("sys.stdout", capture)
    data: dict[str, Any] = {"name": "größer", "n": [1, None]}
    print_json(data)
    assert json.loads(capture.text) == data
    assert "größer" in capture.text
    assert (len(capture.text.splitlines()) > 1) is terminal


def test_data_goes_to_output_and_talk_to_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets the data alone."""
    say("data")
    tell("talk")
    assert capsys.readouterr() == ("data\n", "talk\n")
