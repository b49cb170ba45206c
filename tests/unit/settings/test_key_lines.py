"""The scanner that finds the lines of keys, against the parser that finds the keys."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.settings.key_lines import KeyPath, dotted, find_key_lines, line_of

HARD = '''\
# a comment = with an equals sign
top = "a # no comment" # [nothing]

[table] # comment
"quoted.key" = 1
'literal "key"' = 2
"esc\\u0061ped" = 3
dotted . inner."x y" = 4
multi = """
[not.a.table]
fake = 1 \\""" still
"""
literal = \'\'\'
other = 'x' ''
[[nor.this]]\'\'\'
edges = """"quoted""""
array = [
  "]", # ]
  { inline = [1, "}"] },
  \'\'\']\'\'\',
]
after = { a = { b = 1 }, c = "=" }
[table.sub]
deep = 1979-05-27T07:32:00Z
[[list]]
item = 1
[list.under]
item = 2
[[list]]
item = 3
[[list.nested]]
item = 4
[ spaced . header ]
last=5'''

EXPECTED: dict[KeyPath, int] = {
    ("top",): 2,
    ("table",): 4,
    ("table", "quoted.key"): 5,
    ("table", 'literal "key"'): 6,
    ("table", "escaped"): 7,
    ("table", "dotted", "inner", "x y"): 8,
    ("table", "multi"): 9,
    ("table", "literal"): 13,
    ("table", "edges"): 16,
    ("table", "array"): 17,
    ("table", "after"): 22,
    ("table", "sub"): 23,
    ("table", "sub", "deep"): 24,
    ("list", 0): 25,
    ("list", 0, "item"): 26,
    ("list", 0, "under", "item"): 28,
    ("list", 1): 29,
    ("list", 1, "item"): 30,
    ("list", 1, "nested", 0, "item"): 32,
    ("spaced", "header"): 33,
    ("spaced", "header", "last"): 34,
}


def leaves(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """Return the paths that the standard parser finds."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [leaf for i, item in enumerate(value) for leaf in leaves(item, (*path, i))]
    return [path]


@pytest.mark.parametrize("path", EXPECTED)
def test_hard_file_has_every_key_on_its_line(path: KeyPath) -> None:
    """Strings, comments, brackets and arrays do not lead the scanner astray."""
    tomllib.loads(HARD)
    assert find_key_lines(HARD)[path] == EXPECTED[path]


def test_key_without_a_line_has_that_of_what_encloses_it() -> None:
    """Keys of inline tables are found by their table; strangers have no line."""
    lines = find_key_lines(HARD)
    assert line_of(lines, ("table", "after", "a", "b")) == 22
    assert line_of(lines, ("nowhere",)) is None


values = st.one_of(
    st.integers(-9, 9),
    st.booleans(),
    st.sampled_from(['"""x\n[y]\nz = 1"""', "'''\n#'''", '"a\\"]"', "'['", "[\n1, # ]\n2]", "[]"]),
    st.sampled_from(["{ a = 1 }", '{ "b" = [ {c = 1} ] }', '""', "''"]),
).map(lambda value: str(value).lower() if isinstance(value, bool) else str(value))
keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


@given(st.lists(st.tuples(keys, st.lists(st.tuples(keys, values), max_size=4)), max_size=4))
def test_generated_file_has_every_key_on_the_line_it_was_written_to(
    tables: list[tuple[str, list[tuple[str, str]]]],
) -> None:
    """What was written where is found there."""
    source, expected = "", {}
    seen: set[KeyPath] = set()
    for table, items in tables:
        if (table,) in seen:
            continue
        seen.add((table,))
        expected[(table,)] = source.count("\n") + 1
        source += f"[{dotted((table,))}] # x\n"
        for key, value in items:
            path = (table, key)
            if path in seen:
                continue
            seen.add(path)
            expected[path] = source.count("\n") + 1
            source += f"  {json.dumps(key, ensure_ascii=False)} = {value} # [y]\n"
    parsed = tomllib.loads(source)
    lines = find_key_lines(source)
    assert {path: lines[path] for path in expected} == expected
    assert all(line_of(lines, leaf) is not None for leaf in leaves(parsed))


@given(keys)
def test_dotted_key_reads_back(key: str) -> None:
    """A path is shown as TOML would take it."""
    assert tomllib.loads(f"{dotted((key, 'x'))} = 1") == {key: {"x": 1}}
